"""Multi-head attention's added keys and returned weights compared with torch.nn's, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import CLOSE, assert_twins, draw, params_of

import funcnet as fn
from funcnet import tree, walking


@st.composite
def configurations(draw_from):
    """Draw a MultiHeadAttention with any options of torch.nn's, the module, and an input with or without a mask."""
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
    """Return a function that calls torch.nn's module, whose masks are inverted and have one axis for row and head."""

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
    """Output, weights and all gradients, including bias_k's and bias_v's, agree for the state_dict, with and without masks."""
    embed, count, options, weights, x = case
    shown = {} if weights is None else {"need_weights": True, **weights}
    module = nn.MultiheadAttention(embed, count, **options)
    assert_twins(fn.MultiHeadAttention(embed, count, **options, **shown), module, x, call=called(weights))


@pytest.mark.parametrize("options", [{"is_causal": True}, {"window": 1}, {"window": (2, 0)}, {"is_causal": True, "window": 1}])
@pytest.mark.parametrize("kind", ["none", "bool", "float", "number"])
def test_added_keys_are_seen_whatever_else_is_not(options, kind):
    """is_causal and window are masks of the input's keys only, combined with a given one."""
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
    """A loss of y only, or of the weights only, needs no zeros for the other."""
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
    """The weights include dropout: each is 0 or divided by 1 - p."""
    layer = fn.MultiHeadAttention(4, 1, dropout=0.5, bias=False, need_weights=True, **options)
    params, x = tree.cast(layer.init(0), torch.float64), draw((2, 3, 4))
    y, weights = layer(params, x, 0)
    v, out = params["in_proj_weight"][8:], params["out_proj"]["weight"]
    torch.testing.assert_close(y, weights.reshape(2, 3, 3) @ (x @ v.T) @ out.T, **CLOSE)
    assert 0 < int((weights == 0).sum()) < weights.numel()
    kept = layer.inference()(params, x)[1]
    torch.testing.assert_close(weights[weights > 0], 2 * kept[weights > 0], **CLOSE)


def test_the_first_learned_keys_are_torch_s():
    """Keys are Xavier normal of shape (1, 1, embed_dim), with std 1 / √embed_dim; the other draws do not change."""
    layer = fn.MultiHeadAttention(4096, 1, add_bias_kv=True, initializer="zeros")
    params = layer.init(0)
    assert {name: params[name].shape for name in ("bias_k", "bias_v")} == dict.fromkeys(("bias_k", "bias_v"), (1, 1, 4096))
    assert 0.95 < float(params["bias_k"].std()) * 64 < 1.05
    assert not torch.equal(params["bias_k"], params["bias_v"])
    small = fn.MultiHeadAttention(4, 2, add_bias_kv=True)
    assert torch.equal(small.init(0)["in_proj_weight"], fn.MultiHeadAttention(4, 2).init(0)["in_proj_weight"])
    assert params_of(small, nn.MultiheadAttention(4, 2, add_bias_kv=True)).keys() == small.init(0).keys()


def batch_normalized():
    """Return an attention whose queries and keys are normalized over the batch, its params and an input."""
    layer = fn.MultiHeadAttention(4, 2, qk_norm=fn.BatchNorm2d(2))
    return layer, tree.cast(layer.init(0), torch.float64), draw((3, 4, 4))


def test_update_stats_moves_the_statistics_of_both_norms():
    """Each uses its own half of the cache: queries and keys have different means."""
    layer, params, x = batch_normalized()
    updated = layer.update_stats(params, layer.apply(params, x)[1])
    for name, norm in (("q_norm", updated["q_norm"]), ("k_norm", updated["k_norm"])):
        assert int(norm["num_batches_tracked"]) == 1, name
        assert not torch.equal(norm["running_mean"], params[name]["running_mean"]), name
    assert not torch.equal(updated["q_norm"]["running_mean"], updated["k_norm"]["running_mean"])
    assert updated["in_proj_weight"] is params["in_proj_weight"]


def test_a_norm_s_properties_are_those_of_the_attention():
    """Running statistics, dependence on the batch and the inference layer are tried, with the norm's formula by hand."""
    layer, params, x = batch_normalized()
    assert layer.has_running_stats
    assert layer.batch_dependent
    running = layer.inference()
    assert running == fn.MultiHeadAttention(4, 2, qk_norm=fn.RunningBatchNorm2d(2))
    assert not running.batch_dependent
    assert not running.has_running_stats
    scaled = {**params, "in_proj_weight": params["in_proj_weight"].clone(), "in_proj_bias": params["in_proj_bias"].clone()}
    for leaf in (scaled["in_proj_weight"], scaled["in_proj_bias"]):
        leaf[:8] /= (1 + 1e-5) ** 0.5  # initially the running mean is 0 and the variance 1
    plain = {name: leaf for name, leaf in scaled.items() if name not in ("q_norm", "k_norm")}
    torch.testing.assert_close(running(params, x), fn.MultiHeadAttention(4, 2)(plain, x), **CLOSE)


def test_a_stochastic_norm_gets_a_key_for_queries_and_another_for_keys():
    """Without a key it raises an error; the two masks differ."""
    layer, x = fn.MultiHeadAttention(4, 2, qk_norm=fn.Dropout(0.5)), draw((2, 8, 4)).float()
    params = layer.init(0)
    (q, _), (k, _) = layer.apply(params, x, 0)[1][3]
    assert layer.stochastic
    assert not torch.equal(tree.leaves(q)[0], tree.leaves(k)[0])
    assert torch.equal(layer(params, x, 0), layer(params, x, 0))
    assert layer.inference() == fn.MultiHeadAttention(4, 2, qk_norm=fn.Identity())


def test_its_layers_are_found_by_their_paths():
    """``q_norm`` and ``k_norm`` are one layer with separate params; they can only be replaced together."""
    layer = fn.MultiHeadAttention(4, 2, qk_norm=fn.RMSNorm(2), rotary=fn.RotaryEmbedding(2))
    assert [path for path, _ in walking.walk(layer)] == ["", "q_norm", "k_norm", "rotary"]
    tighter = walking.map_layers(lambda f: f.replace(eps=0.1) if isinstance(f, fn.RMSNorm) else f, layer)
    assert tighter == layer.replace(qk_norm=fn.RMSNorm(2, eps=0.1))
    with pytest.raises(ValueError, match="q_norm and k_norm must be the same layer, qk_norm, got LayerNorm"):
        walking.replace(layer, "q_norm", fn.LayerNorm(2))


def test_an_error_in_a_norm_says_in_which():
    """Forward, backward and ``init`` are tried."""
    layer = fn.MultiHeadAttention(4, 2, qk_norm=fn.RMSNorm(3))
    unsized = fn.MultiHeadAttention(4, 2, qk_norm=fn.RMSNorm(None))
    good, params, x = batch_normalized()
    cache = good.apply(params, x)[1]
    broken = (cache[0], cache[1], cache[2], (((), ()), cache[3][1]))
    for attempt in (
        lambda: layer(layer.init(0), x.float()),
        lambda: unsized.init(0),
        lambda: good.vjp(params, broken, x),
        lambda: good.update_stats(params, broken),
    ):
        with pytest.raises((ValueError, IndexError), match=r".") as caught:
            attempt()
        assert caught.value.__notes__ == ["  in MultiHeadAttention, q_norm"]


X, Q = torch.ones(2, 3, 4), torch.ones(2, 2, 3, 4)
MORE, SHOWN = fn.MultiHeadAttention(4, 2, add_bias_kv=True, is_causal=True), fn.MultiHeadAttention(4, 2, need_weights=True)
P, W = SHOWN.init(0), fn.ScaledDotProductAttention(return_weights=True)
MESSAGES = {
    "MultiHeadAttention: average_attn_weights=False requires need_weights=True, got need_weights=False": lambda: fn.MultiHeadAttention(4, 2, average_attn_weights=False),
    "MultiHeadAttention: add_zero_attn must be True or False, got 1": lambda: fn.MultiHeadAttention(4, 2, add_zero_attn=1),
    "out_proj.bias (4,), bias_k (1, 1, 4), bias_v (1, 1, 4), got in_proj_weight (12, 4)": lambda: MORE(P, X),
    "bias_k (1, 1, 4), bias_v (1, 1, 4), got in_proj_weight (12, 4), in_proj_bias (12,), bias_k (4,)": lambda: MORE({**MORE.init(0), "bias_k": torch.ones(4)}, X),
    "(2, 2, 3, 3); a padding mask has the shape (N, 1, 1, S), True for visible keys: see padding_mask, got a tensor": lambda: (
        MORE(MORE.init(0), (X, torch.ones(2, 3, dtype=torch.bool)))
    ),
    "is_causal=True): the mask must be bool or torch.float32, and broadcast to (..., heads, L, S), (2, 2, 3, 3), got a tensor of shape (3, 2)": lambda: MORE(MORE.init(0), (X, torch.ones(3, 2, dtype=torch.bool))),
    "decode needs one tensor, and a layer with is_causal=True that adds no keys and returns no weights, got": lambda: MORE.decode(MORE.init(0), X, MORE.init_carry(2, 3)),
    "MultiHeadAttention(embed_dim=4, num_heads=2, need_weights=True): gy must be a pair, for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got a tensor": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], X),
    "for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got shapes (2, 3, 4) and (2, 3, 4)": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], (X, X)),
    "for y (2, 3, 4) and for the weights (2, 3, 3), or None for either, got shapes (3, 4) and None": lambda: SHOWN.vjp(P, SHOWN.apply(P, X)[1], (X[0], None)),
    "for y (2, 2, 3, 4) and for the weights (2, 2, 3, 3), or None for either, got shapes (2, 2, 3, 4) and (2, 2, 3, 4)": lambda: W.vjp({}, W.apply({}, (Q, Q, Q))[1], (Q, Q)),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_use_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
