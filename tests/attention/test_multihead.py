"""Multi-head attention's added keys and returned weights beside torch.nn's, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import CLOSE, assert_twins, draw, params_of

import funcnet as fn
from funcnet import tree


@st.composite
def configurations(draw_from):
    """Draw a MultiHeadAttention with all options that torch.nn's has, that module, and an input with a mask or none."""
    count, flag = draw_from(st.integers(1, 3)), st.booleans()
    embed = count * draw_from(st.integers(1, 3))
    kdim, vdim = draw_from(st.sampled_from([(embed, embed), (2, 3), (embed, 2)]))
    names = ("bias", "add_bias_kv", "add_zero_attn", "batch_first")
    options = {**{name: draw_from(flag) for name in names}, "kdim": kdim, "vdim": vdim}
    batch, length, keys = draw_from(st.sampled_from([None, 1, 3])), draw_from(st.integers(1, 4)), draw_from(st.integers(1, 4))
    weights = draw_from(st.sampled_from([None, {}, {"average_attn_weights": False}]))
    seed, kind = draw_from(st.integers(0, 99)), draw_from(st.sampled_from(["none", "bool", "float", "by head"]))
    x = [draw(arranged(n, batch, size, options["batch_first"]), seed + i) for i, (n, size) in enumerate(
        [(length, embed), (keys, kdim), (keys, vdim)])]  # fmt: skip
    shape = (batch or 1, count, length, keys) if kind == "by head" else (length, keys)
    mask = None if kind == "none" else draw(shape, seed + 5)
    mask = (mask > -0.5).index_fill(-1, torch.tensor([0]), value=True) if kind in ("bool", "by head") else mask
    return embed, count, options, weights, (*x, *[one for one in (mask,) if one is not None])


def arranged(steps, batch, size, first):
    """Return a shape with the batch axis first, second or not at all."""
    return (steps, size) if batch is None else (batch, steps, size) if first else (steps, batch, size)


def called(weights):
    """Return a function that calls torch.nn's module, whose masks are the other way round and have one axis for row and head."""

    def call(module, x):
        mask = x[3] if len(x) == 4 else None
        mask = ~mask if mask is not None and mask.dtype is torch.bool else mask
        mask = mask.flatten(0, 1) if mask is not None and mask.dim() == 4 else mask
        found = module(*x[:3], attn_mask=mask, need_weights=weights is not None, **(weights or {}))
        return found[0] if weights is None else found

    return call


@given(configurations())
@settings(max_examples=80)
def test_added_keys_and_returned_weights_are_torch_s(case):
    """Output, weights and all gradients, those of bias_k and bias_v too, with masks and without, from the state_dict."""
    embed, count, options, weights, x = case
    shown = {} if weights is None else {"need_weights": True, **weights}
    module = nn.MultiheadAttention(embed, count, **options)
    assert_twins(fn.MultiHeadAttention(embed, count, **options, **shown), module, x, call=called(weights))


@pytest.mark.parametrize("options", [{"is_causal": True}, {"window": 1}, {"window": (2, 0)}, {"is_causal": True, "window": 1}])
@pytest.mark.parametrize("kind", ["none", "bool", "float", "number"])
def test_added_keys_are_seen_whatever_else_is_not(options, kind):
    """is_causal and window are masks of the input's keys alone, joined with one that is given."""
    x, flags = draw((2, 4, 6)), {"add_bias_kv": True, "add_zero_attn": True, "need_weights": True, "num_kv_heads": 1}
    mask = {"none": None, "bool": draw((4, 4), 1) > 0, "float": draw((2, 1, 1, 4), 1), "number": draw((), 1)}[kind]
    layer = fn.MultiHeadAttention(6, 2, **flags, **options)
    params = tree.cast(layer.init(0), torch.float64)
    y, weights = layer(params, x if mask is None else (x, mask))
    before, after = options.get("window") if isinstance(options.get("window"), tuple) else (options.get("window"),) * 2
    local = fn.local_mask(4, 4, (before, 0 if options.get("is_causal") else after))
    joint = torch.zeros(4, 4, dtype=torch.float64).masked_fill(~local, -torch.inf)
    joint = joint if mask is None else joint.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else joint + mask
    plain = fn.MultiHeadAttention(6, 2, **flags)
    torch.testing.assert_close((y, weights), plain(params, (x, joint)), **CLOSE)
    assert (weights[..., 4:] > 0).all()
    fn.testing.check_vjp(layer, x if mask is None else (x, mask), params)


def test_a_gradient_that_is_none_is_one_of_zeros():
    """So that a loss of y alone, or of the weights alone, needs no zeros of its own."""
    layer = fn.MultiHeadAttention(4, 2, need_weights=True)
    params, x = tree.cast(layer.init(0), torch.float64), draw((2, 3, 4))
    (y, weights), cache = layer.apply(params, x)
    gy, gp = draw(y.shape, 1), draw(weights.shape, 2)
    for some, all_of in [((gy, None), (gy, 0 * gp)), ((None, gp), (0 * gy, gp))]:
        torch.testing.assert_close(layer.vjp(params, cache, some), layer.vjp(params, cache, all_of), **CLOSE)
    plain = layer.replace(need_weights=False)
    torch.testing.assert_close(layer.vjp(params, cache, (gy, None)), plain.vjp(params, plain.apply(params, x)[1], gy), **CLOSE)


@pytest.mark.parametrize("options", [{}, {"average_attn_weights": False}], ids=str)
def test_returned_weights_are_those_by_which_the_values_are_summed(options):
    """Also those that dropout has left, which are 0 or divided by 1 - p."""
    layer = fn.MultiHeadAttention(4, 1, dropout=0.5, bias=False, need_weights=True, **options)
    params, x = tree.cast(layer.init(0), torch.float64), draw((2, 3, 4))
    y, weights = layer(params, x, 0)
    v, out = params["in_proj_weight"][8:], params["out_proj"]["weight"]
    torch.testing.assert_close(y, weights.reshape(2, 3, 3) @ (x @ v.T) @ out.T, **CLOSE)
    assert 0 < int((weights == 0).sum()) < weights.numel()
    kept = layer.inference()(params, x)[1]
    torch.testing.assert_close(weights[weights > 0], 2 * kept[weights > 0], **CLOSE)


def test_the_first_learned_keys_are_torch_s():
    """Xavier normal of the shape (1, 1, embed_dim): a standard deviation of 1 / √embed_dim; the other draws stay as they were."""
    layer = fn.MultiHeadAttention(4096, 1, add_bias_kv=True, initializer="zeros")
    params = layer.init(0)
    assert {name: params[name].shape for name in ("bias_k", "bias_v")} == dict.fromkeys(("bias_k", "bias_v"), (1, 1, 4096))
    assert 0.95 < float(params["bias_k"].std()) * 64 < 1.05
    assert not torch.equal(params["bias_k"], params["bias_v"])
    small = fn.MultiHeadAttention(4, 2, add_bias_kv=True)
    assert torch.equal(small.init(0)["in_proj_weight"], fn.MultiHeadAttention(4, 2).init(0)["in_proj_weight"])
    assert params_of(small, nn.MultiheadAttention(4, 2, add_bias_kv=True)).keys() == small.init(0).keys()


X, Q = torch.ones(2, 3, 4), torch.ones(2, 2, 3, 4)
MORE, SHOWN = fn.MultiHeadAttention(4, 2, add_bias_kv=True, is_causal=True), fn.MultiHeadAttention(4, 2, need_weights=True)
P, W = SHOWN.init(0), fn.ScaledDotProductAttention(return_weights=True)
MESSAGES = {
    "MultiHeadAttention: average_attn_weights=False must come with need_weights=True, got need_weights=False": lambda: fn.MultiHeadAttention(4, 2, average_attn_weights=False),
    "MultiHeadAttention: add_zero_attn must be True or False, got 1": lambda: fn.MultiHeadAttention(4, 2, add_zero_attn=1),
    "out_proj.bias (4,), bias_k (1, 1, 4), bias_v (1, 1, 4), got in_proj_weight (12, 4)": lambda: MORE(P, X),
    "bias_k (1, 1, 4), bias_v (1, 1, 4), got in_proj_weight (12, 4), in_proj_bias (12,), bias_k (4,)": lambda: MORE({**MORE.init(0), "bias_k": torch.ones(4)}, X),
    "is_causal=True): the mask must be bool or torch.float32, and broadcast to (..., heads, L, S), (2, 2, 3, 3), got a tensor of shape (3, 2)": lambda: MORE(MORE.init(0), (X, torch.ones(3, 2, dtype=torch.bool))),
    "decode must be of one tensor, and a layer with is_causal=True that adds no keys and returns no weights, got": lambda: MORE.decode(MORE.init(0), X, MORE.init_carry(2, 3)),
    "MultiHeadAttention(embed_dim=4, num_heads=2, need_weights=True): gy must be a pair, for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got a tensor": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], X),
    "for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got shapes (2, 3, 4) and (2, 3, 4)": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], (X, X)),
    "for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got shapes (3, 4) and None": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], (X[0], None)),
    "for y (2, 2, 3, 4) and for the weights (2, 2, 3, 3), or None for either, got shapes (2, 2, 3, 4) and (2, 2, 3, 4)": lambda: W.vjp({}, W.apply({}, (Q, Q, Q))[1], (Q, Q)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MESSAGES)
def test_bad_use_is_refused_with_its_sentence(sentence):
    """Each message says who, the rule with its numbers, and what came."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[sentence]()
    assert sentence in str(caught.value)
