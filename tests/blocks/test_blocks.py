"""Multilayer perceptrons and the blocks of residual nets."""

import pytest
from twins import draw

import funcnet as fn
from funcnet import tree


def test_an_mlp_is_its_linears_with_the_activation_between():
    """Two sizes make one Linear; dropout follows each activation; the last layer has none."""
    assert fn.mlp([3, 2]) == fn.serial(fn.Linear(3, 2))
    want = fn.serial(fn.Linear(3, 4, bias=False), fn.Tanh(), fn.Dropout(0.5), fn.Linear(4, 2, bias=False), fn.Softmax())
    assert fn.mlp([3, 4, 2], fn.Tanh(), dropout=0.5, bias=False, output_activation=fn.Softmax()) == want


@pytest.mark.parametrize("sizes", [[3], [], [3, 0], [3, 2.5]], ids=str)
def test_sizes_of_an_mlp_are_whole_numbers(sizes):
    """There are at least two sizes."""
    with pytest.raises(
        ValueError, match="mlp: sizes must be two or more whole numbers, of the input and of each layer, got a list of"
    ):
        fn.mlp(sizes)


@pytest.mark.parametrize(("layer", "shape"), [(fn.resnet_block(4, 4), (2, 4, 6, 6)), (fn.resnet_block(4, 8, 2), (2, 8, 3, 3)),
                                              (fn.resnet_bottleneck(4, 3, 2), (2, 12, 3, 3))], ids=str)  # fmt: skip
def test_a_resnet_block_halves_the_picture_by_its_stride(layer, shape):
    """The shortcut is the identity if the shape stays, and a convolution otherwise."""
    params = layer.init(0)
    assert tuple(layer(params, draw((2, 4, 6, 6)).float()).shape) == shape
    assert bool(tree.leaves(params[0][1])) == (shape[1] != 4)
