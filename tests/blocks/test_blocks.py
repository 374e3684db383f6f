"""Blocks beside the modules of torch.nn that do the same."""

import pytest
import torch
from torch import nn
from twins import CLOSE, draw

import funcnet as fn
from funcnet import tree


def agree(layer, params, module, x, call):
    """Check output, the gradients of x, and that of every param against the module's, both in the order of their names."""
    given = tree.map(lambda leaf: leaf.clone().requires_grad_(), x)
    want = call(module, given)
    y, cache = layer.apply(params, x)
    gy = draw(y.shape, 7)
    gparams, gx = layer.vjp(params, cache, gy)
    grads = torch.autograd.grad(want, [*tree.leaves(given), *module.parameters()], gy)
    torch.testing.assert_close(y, want.detach(), **CLOSE)
    count = len(tree.leaves(given))
    torch.testing.assert_close(tree.leaves(gx), list(grads[:count]), **CLOSE)
    torch.testing.assert_close(sorted(map(total, tree.leaves(gparams))), sorted(map(total, grads[count:])), **CLOSE)


def total(g):
    """Sum a gradient in a way that no other has by chance."""
    return float((g.double() ** 2).sum())


def attention(named, at):
    out = {"weight": named[f"{at}.out_proj.weight"], "bias": named[f"{at}.out_proj.bias"]}
    return {"in_proj_weight": named[f"{at}.in_proj_weight"], "in_proj_bias": named[f"{at}.in_proj_bias"], "out_proj": out}


def affine(named, at):
    return {"weight": named[f"{at}.weight"], "bias": named[f"{at}.bias"]}


def feed_forward(named):
    return affine(named, "linear1"), {}, affine(named, "linear2")


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_the_encoder_block_is_torch_s(norm_first, causal):
    """With the weights of torch.nn.TransformerEncoderLayer, its outputs and gradients."""
    module = nn.TransformerEncoderLayer(
        8, 2, 5, dropout=0.0, activation="gelu", norm_first=norm_first, batch_first=True, dtype=torch.float64
    )
    module.norm1.weight.data += draw((8,)) * 0.1
    layer = fn.transformer_encoder_block(8, 2, 5, norm_first=norm_first, is_causal=causal)
    named = {name: leaf.detach() for name, leaf in module.named_parameters()}
    one, two = affine(named, "norm1"), affine(named, "norm2")
    if norm_first:
        params = ((one, attention(named, "self_attn")), {}, {}), ((two, *feed_forward(named)), {}, {})
    else:
        params = ((attention(named, "self_attn"),), {}, {}), one, (feed_forward(named), {}, {}), two
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64) if causal else None
    agree(layer, params, module, draw((2, 3, 8), 1), lambda m, x: m(x, mask))


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_decoder_block_is_torch_s(norm_first):
    """With the weights of torch.nn.TransformerDecoderLayer, its outputs and gradients, the memory's too."""
    module = nn.TransformerDecoderLayer(
        8, 2, 5, dropout=0.0, activation="relu", norm_first=norm_first, batch_first=True, dtype=torch.float64
    )
    layer = fn.transformer_decoder_block(8, 2, 5, norm_first=norm_first, activation=fn.ReLU())
    named = {name: leaf.detach() for name, leaf in module.named_parameters()}
    params = {name: {} for name in layer.init(0)} | {
        "a": (attention(named, "self_attn"),),
        "c": (attention(named, "multihead_attn"),),
    }
    norms = ("n1", "n2", "n3") if norm_first else ("h", "g", "y")
    params |= {"m": feed_forward(named)} | {norm: affine(named, f"norm{i + 1}") for i, norm in enumerate(norms)}
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    agree(layer, params, module, (draw((2, 3, 8), 1), draw((2, 4, 8), 2)), lambda m, x: m(*x, tgt_mask=mask))


def test_an_mlp_is_its_linears_with_the_activation_between():
    """Two sizes make one Linear; dropout follows each activation; the last layer has none."""
    assert fn.mlp([3, 2]) == fn.serial(fn.Linear(3, 2))
    want = fn.serial(fn.Linear(3, 4, bias=False), fn.Tanh(), fn.Dropout(0.5), fn.Linear(4, 2, bias=False), fn.Softmax())
    assert fn.mlp([3, 4, 2], fn.Tanh(), dropout=0.5, bias=False, output_activation=fn.Softmax()) == want


@pytest.mark.parametrize("sizes", [[3], [], [3, 0], [3, 2.5]], ids=str)
def test_sizes_of_an_mlp_are_whole_numbers(sizes):
    """At least the input's and the output's."""
    with pytest.raises(
        ValueError, match="mlp: sizes must be two or more whole numbers, the input's and each layer's, got a list of"
    ):
        fn.mlp(sizes)


@pytest.mark.parametrize(("layer", "shape"), [(fn.resnet_block(4, 4), (2, 4, 6, 6)), (fn.resnet_block(4, 8, 2), (2, 8, 3, 3)),
                                              (fn.resnet_bottleneck(4, 3, 2), (2, 12, 3, 3))], ids=str)  # fmt: skip
def test_a_resnet_block_halves_the_picture_by_its_stride(layer, shape):
    """The shortcut is the identity where the shape stays, and a convolution where it does not."""
    params = layer.init(0)
    assert tuple(layer(params, draw((2, 4, 6, 6)).float()).shape) == shape
    assert bool(tree.leaves(params[0][1])) == (shape[1] != 4)


def test_a_causal_block_does_not_look_ahead():
    """A change at step 2 changes no output before it, and the block learns nothing from what comes after."""
    layer = fn.transformer_encoder_block(8, 2, is_causal=True)
    params, x = layer.init(0), draw((1, 4, 8)).float()
    y, other = layer(params, x), layer(params, x.index_fill(1, torch.tensor([2]), 0.5))
    assert torch.equal(y[:, :2], other[:, :2])
    assert not torch.equal(y[:, 2:], other[:, 2:])
