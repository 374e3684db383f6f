"""ALiBi and soft caps: attention's scores compared with autograd of the formulas, at extremes and in half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from twins import CLOSE, assert_twins, draw

import funcnet as fn

SDPA = fn.ScaledDotProductAttention

# For 1 to 5 heads by hand, for 8 from the paper, and for 12: 8 to 11 are every other slope of 16 heads.
SLOPES = {
    1: [2**-8],
    2: [2**-4, 2**-8],
    3: [2**-4, 2**-8, 2**-2],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    5: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1],
    8: [2**-n for n in range(1, 9)],
    12: [2**-n for n in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5],
}


def distances(length, keys):
    """Return |i - j|."""
    return (torch.arange(length).unsqueeze(1) - torch.arange(keys)).abs().double()


class Formula(nn.Module):
    """Attention by its formula, as the reference."""

    def __init__(self, layer, slopes):
        super().__init__()
        self.layer, self.slopes = layer, slopes

    def forward(self, x):
        q, k, v = x[:3]
        k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
        s = q @ k.mT * q.shape[-1] ** -0.5
        cap = self.layer.soft_cap
        s = s if cap is None else cap * (s / cap).tanh()
        if self.layer.alibi:
            s = s - self.slopes.reshape(-1, 1, 1) * distances(*s.shape[-2:])
        if len(x) == 4:
            s = s + x[3] if x[3].is_floating_point() else s.masked_fill(~x[3], -torch.inf)
        if self.layer.is_causal:
            s = s.masked_fill(~fn.local_mask(*s.shape[-2:], (None, 0)), -torch.inf)
        return s.softmax(-1) @ v


@st.composite
def attentions(draw_from):
    """Draw a number of heads, options, shapes and a mask."""
    heads, flags = draw_from(st.sampled_from([*SLOPES])), st.booleans()
    cap, group = draw_from(st.sampled_from([None, 0.4, 50.0])), 2 if heads % 2 == 0 and draw_from(flags) else 1
    layer = SDPA(draw_from(flags), alibi=draw_from(flags), soft_cap=cap, enable_gqa=group > 1)
    length, keys, width = (draw_from(st.integers(1, 5)) for _ in range(3))
    seed, mask = draw_from(st.integers(0, 99)), draw_from(st.sampled_from([None, "bool", "float"]))
    shapes = (
        (2, heads, length, width),
        (2, heads // group, keys, width),
        (2, heads // group, keys, draw_from(st.sampled_from([width, 2]))),
    )
    x = tuple(draw(shape, seed + i) for i, shape in enumerate(shapes))
    seen = (draw((2, 1, 1, keys), seed) > -0.5).index_fill(-1, torch.tensor([0]), value=True)
    return heads, layer, x + {None: (), "bool": (seen,), "float": (draw((heads, length, keys), seed),)}[mask]


@given(attentions())
@settings(max_examples=80)
def test_values_and_gradients_are_those_of_the_formula(case):
    """Autograd agrees, including the mask: with and without masks, causality, grouped heads and the flash kernel."""
    heads, layer, x = case
    assert_twins(layer, Formula(layer, torch.tensor(SLOPES[heads], dtype=torch.float64)), x)


@pytest.mark.parametrize("heads", SLOPES)
def test_the_slopes_are_the_paper_s(heads):
    """With equal scores, the log of the weights falls by the slope at every step."""
    x = tuple(torch.zeros(1, heads, 4, 2, dtype=torch.float64) for _ in range(3))
    p = SDPA(alibi=True, return_weights=True)({}, x)[1]
    fall = -p[0, :, 0].log().diff(dim=-1)
    torch.testing.assert_close(fall, torch.tensor(SLOPES[heads], dtype=torch.float64).unsqueeze(1).expand(-1, 3), **CLOSE)


def test_alibi_keeps_the_flash_kernel():
    """Its cache has no matrix of queries by keys; values and gradients agree with the formula's, which vmap uses."""
    layer, x = SDPA(alibi=True, is_causal=True), tuple(draw((2, 3, 64, 4), i) for i in range(3))

    def work(*x):
        y, cache = layer.apply({}, x)
        return y, *layer.vjp({}, cache, y + 1)[1]

    assert fn.tree.nbytes(layer.apply({}, x)[1]) < 5 * x[0].nbytes
    formula = torch.func.vmap(work)(*[one.unsqueeze(0) for one in x])
    torch.testing.assert_close(work(*x), tuple(out[0] for out in formula), **CLOSE)


@pytest.mark.parametrize("options", [{"alibi": True}, {"soft_cap": 2.0}, {"alibi": True, "soft_cap": 2.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_scores_are_of_float32(options, dtype):
    """At distance 400 and scores of 20 results are within rounding of float64; in bfloat16 400/16 itself is 0.06 off."""
    x = tuple((draw((1, 5, 400, 8), i) * (3 if i < 2 else 1)).to(dtype) for i in range(3))
    layer, wide = SDPA(**options), tuple(one.double() for one in x)
    y, cache = layer.apply({}, x)
    want, of_want = layer.apply({}, wide)
    gy = torch.ones_like(y)
    eps = torch.finfo(dtype).eps
    for got, exact in zip((y, *layer.vjp({}, cache, gy)[1]), (want, *layer.vjp({}, of_want, gy.double())[1]), strict=True):
        assert float((got.double() - exact).abs().max()) < 8 * eps * float(exact.abs().max())


@pytest.mark.parametrize("size", [1e-20, 1e10, 1e18])
def test_a_soft_cap_bounds_huge_scores_and_keeps_tiny_ones(size):
    """Scores of 1e36 become the cap and pass no gradient; tiny scores are the same as without a cap."""
    q, k, v = (draw((1, 1, 3, 2), i).float() for i in range(3))
    layer = SDPA(soft_cap=5.0)
    y, cache = layer.apply({}, (q * size, k * size, v))
    grads = layer.vjp({}, cache, torch.ones_like(y))[1]
    assert fn.tree.all_finite((y, grads))
    signs = (q.double() @ k.double().mT).sign() * 5 if size > 1 else torch.zeros(1, 1, 3, 3).double()
    torch.testing.assert_close(y.double(), signs.softmax(-1) @ v.double())
    assert size < 1 or not (grads[0].any() or grads[1].any())


@pytest.mark.parametrize("options", [{"alibi": True}, {"soft_cap": 2.0}], ids=str)
def test_a_query_that_sees_nothing_gives_zero(options):
    """Output and gradients are 0, even if all queries see nothing; a key that no query sees has no gradient."""
    x = tuple(draw((2, 2, 3, 4), i) for i in range(3))
    for mask in (torch.zeros(1, dtype=torch.bool), torch.tensor([[True, True, False], [False] * 3, [True, False, False]])):
        y, cache = SDPA(**options).apply({}, (*x, mask))
        gq, gk, gv, _ = SDPA(**options).vjp({}, cache, torch.ones_like(y))[1]
        assert fn.tree.all_finite((y, gq, gk, gv))
        assert not any(bool(part.any()) for part in (y[:, :, 1], gq[:, :, 1], gk[:, :, 2], gv[:, :, 2]))


def test_multihead_attention_hands_its_options_to_its_heads():
    """Its y equals the outputs of the heads, combined by hand."""
    layer = fn.MultiHeadAttention(6, 3, alibi=True, soft_cap=0.5, is_causal=True, bias=False)
    params, x = fn.tree.cast(layer.init(0), torch.float64), draw((2, 4, 6))
    qkv = [one.unflatten(-1, (3, 2)).transpose(1, 2) for one in (x @ params["in_proj_weight"].T).split(6, -1)]
    a = SDPA(alibi=True, soft_cap=0.5, is_causal=True)({}, tuple(qkv)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer(params, x), a @ params["out_proj"]["weight"].T, **CLOSE)


MEMORIES = {
    "plain": fn.MultiHeadAttention(8, 2),
    "sizes, grouped, normalized": fn.MultiHeadAttention(8, 4, kdim=3, vdim=3, num_kv_heads=2, qk_norm=fn.RMSNorm(2), dropout=0.2),
    "soft cap, no bias": fn.MultiHeadAttention(8, 4, soft_cap=0.4, bias=False),
}


@pytest.mark.parametrize("layer", MEMORIES.values(), ids=MEMORIES)
def test_keys_of_a_memory_are_computed_once(layer):
    """Decoding step by step gives the layer's output for the whole sequence; the carry does not change."""
    x, memory = draw((2, 3, 8)), draw((2, 5, layer.kdim or 8), 1)
    params, mask = fn.tree.cast(layer.init(0), torch.float64), fn.padding_mask(torch.tensor([5, 2]), 5)
    for one in (None, mask, draw((2, 1, 1, 5), 2)):
        more = () if one is None else (one,)
        carry = layer.memory_carry(params, memory, one)
        ys = [layer.decode(params, x[:, i : i + 1], carry) for i in range(3)]
        want = layer.inference()(params, (x, memory, memory, *more))
        torch.testing.assert_close(torch.cat([y for y, _ in ys], 1), want, **CLOSE)
        assert all(after is carry for _, after in ys)


X = torch.ones(2, 3, 4)
REFUSED = {
    "ScaledDotProductAttention: soft_cap must be a finite number above 0.0, got 0": lambda: SDPA(soft_cap=0),
    "MultiHeadAttention: alibi=True must come without added keys, which have no position, got added keys": lambda: fn.MultiHeadAttention(4, 2, alibi=True, add_zero_attn=True),
    "memory_carry needs a layer without is_causal, window, rotary, alibi, added keys and returned weights": lambda: fn.MultiHeadAttention(4, 2, alibi=True).memory_carry({}, X),
    "MultiHeadAttention(embed_dim=4, num_heads=2): memory must be a floating tensor with the axes (N, S, features), of 4 features": lambda: fn.MultiHeadAttention(4, 2).memory_carry(fn.MultiHeadAttention(4, 2).init(0), X[..., :2]),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        REFUSED[message]()
    assert message in str(caught.value)
