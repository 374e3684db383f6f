"""Calls of layers with several inputs or outputs in traced code: with the module's arguments, by position or name."""

from typing import Any

import pytest
import torch
from layer_modules import SAMPLES
from torch import Tensor, nn
from twins import draw

from funcnet.interop.torch_nn.importing.layers import call_of, converter_of
from funcnet.interop.torch_nn.importing.values import Arithmetic, Node, Ref, Shape, Size, UnsupportedError

A, B, C = Ref("a"), Ref("b"), Ref("c")
IDS, OFFSETS, WEIGHTS = torch.tensor([1, 0, 4, 5]), torch.tensor([0, 3]), draw((4,)).float()
UNPOOLED = nn.MaxPool2d(2, return_indices=True)(draw((1, 2, 5, 7)).float())

CALLED: dict[str, tuple[nn.Module, list[Any], dict[str, Any]]] = {
    "Bilinear": (nn.Bilinear(4, 3, 2), [draw((5, 4)).float()], {"input2": draw((5, 3)).float()}),
    "AdaptiveLogSoftmaxWithLoss": (
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4]),
        [draw((4, 8)).float(), torch.tensor([1, 5, 15, 19])],
        {},
    ),
    "CosineSimilarity": (nn.CosineSimilarity(), [draw((5, 4)).float()], {"x2": draw((5, 4), 1).float()}),
    "PairwiseDistance": (nn.PairwiseDistance(), [draw((5, 4)).float(), draw((5, 4), 1).float()], {}),
    "MaxPool2d": (nn.MaxPool2d(2), [], {"input": draw((2, 3, 4, 4)).float()}),
    "MaxPool1d, indices": (nn.MaxPool1d(2, return_indices=True), [draw((2, 3, 4)).float()], {}),
    "AdaptiveMaxPool2d, indices": (nn.AdaptiveMaxPool2d(2, return_indices=True), [draw((2, 3, 4, 4)).float()], {}),
    "FractionalMaxPool2d, indices": (
        nn.FractionalMaxPool2d(2, output_size=3, return_indices=True),
        [draw((2, 3, 6, 6)).float()],
        {},
    ),
    "MaxUnpool2d": (nn.MaxUnpool2d(2), [draw((1, 1, 2)).float(), torch.tensor([[[3, 5]]])], {}),
    "MaxUnpool2d, size": (nn.MaxUnpool2d(2), [*UNPOOLED], {"output_size": (5, 7)}),
    "MaxUnpool2d, size of a batch": (nn.MaxUnpool2d(2), [*UNPOOLED, torch.Size([1, 2, 5, 7])], {}),
    "ConvTranspose2d": (nn.ConvTranspose2d(3, 2, 2, 2), [draw((2, 3, 4, 4)).float()], {"output_size": None}),
    "EmbeddingBag": (nn.EmbeddingBag(6, 3), [IDS.reshape(2, 2)], {}),
    "EmbeddingBag, offsets": (nn.EmbeddingBag(6, 3), [IDS, OFFSETS], {}),
    "EmbeddingBag, offsets and weights": (
        nn.EmbeddingBag(6, 3, mode="sum"),
        [IDS],
        {"per_sample_weights": WEIGHTS, "offsets": OFFSETS},
    ),
    "EmbeddingBag, weights": (
        nn.EmbeddingBag(6, 3, mode="sum"),
        [IDS.reshape(2, 2)],
        {"per_sample_weights": WEIGHTS.reshape(2, 2)},
    ),
}


def _node(module: nn.Module, *args: Any, **kwargs: Any) -> Node:
    convert, call = converter_of(module), call_of(module)
    assert convert is not None
    assert call is not None
    return call(module, *convert(module, None), *args, **kwargs)


@pytest.mark.parametrize("name", CALLED)
def test_a_call_is_that_of_the_module(name: str) -> None:
    """For tensor inputs, the node returns the module's output in the same structure."""
    module, args, kwargs = CALLED[name]
    known: dict[str, Tensor] = {}

    def named(argument: Any) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        known[str(len(known))] = argument
        return Ref(str(len(known) - 1))

    node = _node(module, *map(named, args), **{name: named(argument) for name, argument in kwargs.items()})
    inputs = tuple([known[one.name] for one in node.inputs if isinstance(one, Ref)])
    y = node.layer(node.params, inputs if len(inputs) > 1 else inputs[0], 0)
    want = module(*args, **kwargs)
    assert isinstance(want, tuple) is (node.parts == (None, None))
    torch.testing.assert_close(y, tuple(want) if isinstance(want, tuple) else want)


def test_every_module_with_several_inputs_or_outputs_has_a_call() -> None:
    """These are the samples that are called with a tuple, or return one."""
    missing = []
    for name, sample in SAMPLES.items():
        module = sample.make().double()
        several = isinstance(sample.x, tuple) or getattr(module, "return_indices", False)
        missing += [name] * (several and call_of(module) is None)
    assert missing == []


OF_A_TENSOR = {
    "all sizes": Shape(C),
    "the last": Shape(C, -2),
    "those after two": Shape(C, 2),
    "one by one": (Size(C, 2), Size(C, 3)),
    "one by one from the end": [Size(C, -2), Size(C, 3)],
    "with batch and channels": (1, 2, Size(C, 2), Size(C, 3)),
}


@pytest.mark.parametrize("sizes", OF_A_TENSOR)
def test_an_output_size_that_a_tensor_has_makes_it_an_input(sizes: str) -> None:
    """However the sizes are written, y then has these lengths."""
    size, like = OF_A_TENSOR[sizes], torch.zeros(1, 2, 5, 7)
    node = _node(nn.MaxUnpool2d(2), A, B, output_size=size)
    assert node.inputs == (A, B, C)
    want = nn.MaxUnpool2d(2)(*UNPOOLED, output_size=like.size())
    assert torch.equal(node.layer(node.params, (*UNPOOLED, like)), want)
    module, x = nn.ConvTranspose2d(3, 2, 3, 2, 1), draw((1, 3, 3, 4)).float()
    node = _node(module, A, output_size=size)
    assert node.inputs == (A, C)
    torch.testing.assert_close(node.layer(node.params, (x, like)), module(x, output_size=like.size()))


_ONE_OF = "output_size must be the last 2 sizes of one tensor"

REFUSED = {
    "output_size must be sizes of a tensor": lambda: _node(nn.ConvTranspose1d(3, 2, 2), A, [9]),
    f"{_ONE_OF}, such as skip.shape[-2:]": lambda: _node(nn.MaxUnpool2d(2), A, B, Shape(C, 1)),
    f"{_ONE_OF}, such": lambda: _node(nn.MaxUnpool2d(2), A, B, (Size(B, 2), Size(C, 3))),
    _ONE_OF: lambda: _node(nn.ConvTranspose2d(3, 2, 2), A, (Size(C, 3), Size(C, 2))),
    _ONE_OF[:-1]: lambda: _node(nn.ConvTranspose2d(3, 2, 2), A, (Arithmetic("mul", Size(C, 2), 2), Size(C, 3))),
    "output_size must have 2 entries, or 4 with batch and channels, got 3": lambda: _node(nn.MaxUnpool2d(2), A, B, (1, 2, 3)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_call_that_has_no_counterpart_is_refused(reason: str) -> None:
    """The error has the reason."""
    with pytest.raises(UnsupportedError) as caught:
        REFUSED[reason]()
    assert str(caught.value).startswith(reason)
