"""Attention and positions compared with torch's, decoding with the whole sequence, and the errors they raise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from twins import CLOSE, assert_twins, draw, twin_of

import funcnet as fn
from funcnet.kernels import attention as kernels
from funcnet.kernels.attention_products import BACKWARD
from funcnet.kernels.choices import forced


class Function(nn.Module):
    """A function without params as a module."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@st.composite
def products(draw_from):
    """Draw options of attention, shapes that fit, and a mask."""
    heads, group = draw_from(st.sampled_from([1, 2])), draw_from(st.sampled_from([1, 2]))
    length, keys, width = (draw_from(st.integers(1, 5)) for _ in range(3))
    values = draw_from(st.sampled_from([width, 3]))
    lead = draw_from(st.sampled_from([(2,), (0,), (1, 2)]))
    shapes = (*lead, heads * group, length, width), (*lead, heads, keys, width), (*lead, heads, keys, values)
    mask = draw_from(st.sampled_from([None, "bool", "float"]))
    where = draw_from(st.sampled_from([(length, keys), (1, keys), (heads * group, length, 1), (*lead, 1, 1, keys)]))
    causal = mask is None and draw_from(st.booleans())
    return shapes, mask, where, {"is_causal": causal, "scale": draw_from(st.sampled_from([None, 0.7])), "enable_gqa": group > 1}


@given(products(), st.integers(0, 99))
@settings(max_examples=60)
def test_attention_agrees_with_torch(case, seed):
    """Value and all gradients, including the mask's, equal those of torch.nn.functional.scaled_dot_product_attention."""
    shapes, mask, where, options = case
    x = tuple(draw(shape, seed + i) for i, shape in enumerate(shapes))
    more = {None: (), "bool": (draw(where, seed) > -0.5,), "float": (draw(where, seed),)}[mask]
    twin = Function(lambda x: functional.scaled_dot_product_attention(*x[:3], x[3] if len(x) == 4 else None, **options))
    assert_twins(fn.ScaledDotProductAttention(**options), twin, x + more)


@st.composite
def heads(draw_from):
    """Draw options of a MultiheadAttention and an input."""
    count = draw_from(st.integers(1, 3))
    embed = count * draw_from(st.integers(1, 3))
    sizes = draw_from(st.sampled_from([(embed, embed), (2, 3), (embed, 2)]))
    options = {"bias": draw_from(st.booleans()), "kdim": sizes[0], "vdim": sizes[1], "batch_first": draw_from(st.booleans())}
    options |= {name: draw_from(st.booleans()) for name in ("add_bias_kv", "add_zero_attn")}
    options["dropout"] = draw_from(st.sampled_from([0.0, 0.3]))
    batch, length, keys = draw_from(st.sampled_from([None, 1, 3])), draw_from(st.integers(1, 4)), draw_from(st.integers(1, 4))
    return embed, count, options, batch, length, keys


def arranged(steps, batch, size, first):
    """Return a shape with the batch axis first, second or not at all."""
    return (steps, size) if batch is None else (batch, steps, size) if first else (steps, batch, size)


@twin_of("MultiheadAttention")
@given(heads(), st.sampled_from(["plain", "mask", "bias"]), st.integers(0, 99))
@settings(max_examples=40)
def test_multihead_attention_agrees_with_torch(case, kind, seed):
    """Output and gradients match torch.nn.MultiheadAttention with its state_dict; torch's masks are inverted."""
    embed, count, options, batch, length, keys = case
    first = options["batch_first"]
    x = tuple(draw(arranged(n, batch, size, first), seed + i) for i, (n, size) in enumerate(
        [(length, embed), (keys, options["kdim"]), (keys, options["vdim"])]))  # fmt: skip
    allowed = (draw((length, keys), seed) > -0.5).index_fill(1, torch.tensor([0]), value=True)
    more = {"plain": (), "mask": (allowed,), "bias": (draw((length, keys), seed + 5),)}[kind]

    def call(module, x):
        mask = x[3] if len(x) == 4 else None
        turned = None if mask is None else ~mask if mask.dtype is torch.bool else mask
        return module(*x[:3], attn_mask=turned, need_weights=False)[0]

    layer, module = fn.MultiHeadAttention(embed, count, **options), nn.MultiheadAttention(embed, count, **options)
    assert_twins(layer.inference(), module.eval(), x + more, call=call)  # nothing is dropped


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([None, 2]), st.integers(0, 99))
@settings(max_examples=20)
def test_self_attention_agrees_with_torch(heads, size, batch, seed):
    """One input is query, key and value, and is_causal replaces torch's mask."""
    x = draw(arranged(4, batch, heads * size, True), seed)
    layer, module = fn.MultiHeadAttention(heads * size, heads, is_causal=True), nn.MultiheadAttention(
        heads * size, heads, batch_first=True)  # fmt: skip
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    assert_twins(layer, module, x, call=lambda m, x: m(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)[0])


def both_ways(layer, x):
    """Return y and gx from the flash kernel, and from the formula, which vmap uses."""

    def work(*x):
        y, cache = layer.apply({}, x)
        return y, *[g for g in layer.vjp({}, cache, torch.ones_like(y) + y)[1] if g is not None]

    return work(*x), [out[0] for out in torch.func.vmap(work)(*[leaf.unsqueeze(0) for leaf in x])]


@pytest.mark.parametrize("mask", [(), (torch.tensor([[True, False, True]] * 3 + [[False] * 3]),)], ids=["none", "a dead row"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 1, "scale": 2.0}], ids=str)
def test_both_kernels_give_the_same(options, mask):
    """Flash and formula agree to rounding; a query that sees no key gives 0 and has no gradient."""
    x = tuple(draw((2, 2, n, 3), n) for n in (4, 3, 3))
    flash, formula = both_ways(fn.ScaledDotProductAttention(**options), (*x, *mask))
    torch.testing.assert_close(flash, tuple(formula), **CLOSE)
    assert all(out.isfinite().all() for out in flash)
    assert not mask or not (flash[0][:, :, 3].any() or flash[1][:, :, 3].any())


@pytest.mark.parametrize("options", [{}, {"is_causal": True}], ids=str)
@pytest.mark.parametrize(("length", "dtype"), [(40, torch.bfloat16), (300, torch.bfloat16), (40, torch.float16)], ids=str)
def test_half_precision_is_computed_in_single_where_that_is_quicker(monkeypatch, length, dtype, options):
    """float16 always is, bfloat16 backward only for short sequences; dtypes are kept, and results are close to float32's."""
    seen = []
    for name in ("_flash", "_flash_backward"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *args, kernel=kernel, **more: seen.append(args[0].dtype) or kernel(*args, **more)
        )
    layer = fn.ScaledDotProductAttention(**options)
    x = tuple(draw((2, 2, length, 32), n).to(dtype) for n in range(3))
    with forced(BACKWARD.name, "flash"):
        y, cache = layer.apply({}, x)
        _, gx = layer.vjp({}, cache, y)
    single = torch.float32
    short = length * 32 < kernels.BFLOAT16.value
    assert seen == [single if dtype is torch.float16 else dtype, single if short or dtype is torch.float16 else dtype]
    wide, cache = layer.apply({}, fn.tree.cast(x, torch.float64))
    found, want = (y, *gx), (wide, *layer.vjp({}, cache, y.double())[1])
    assert all(leaf.dtype is dtype for leaf in found)
    for one, other in zip(found, want, strict=True):
        assert (one - other).norm() < torch.finfo(dtype).eps * other.norm()


def test_a_row_of_minus_infinity_gives_zero_and_no_nan():
    """A floating mask that hides all keys works as a bool one does, forward and backward."""
    x = tuple(draw((2, 2, n, 3), n) for n in (2, 3, 3))
    bias = torch.tensor([[0.0, 1.0, 2.0], [-torch.inf] * 3], dtype=torch.float64)
    y, cache = fn.ScaledDotProductAttention().apply({}, (*x, bias))
    gx = fn.ScaledDotProductAttention().vjp({}, cache, torch.ones_like(y))[1]
    assert not y[:, :, 1].any()
    assert not gx[0][:, :, 1].any()
    assert fn.tree.all_finite(gx)


def test_the_memory_of_long_attention_grows_with_the_length():
    """A causal layer keeps only its inputs and outputs of 1024 steps; the scores by themselves would be 16 times as large."""
    x = tuple(torch.ones(1, 2, 1024, 16) for _ in range(3))
    assert fn.tree.nbytes(fn.ScaledDotProductAttention(is_causal=True).apply({}, x)[1]) < 5 * x[0].nbytes


DECODERS = {
    "plain": fn.MultiHeadAttention(8, 4, is_causal=True),
    "grouped and rotary": fn.MultiHeadAttention(8, 4, is_causal=True, num_kv_heads=2, rotary=fn.RotaryEmbedding(2)),
    "normalized": fn.MultiHeadAttention(8, 2, is_causal=True, qk_norm=fn.RMSNorm(4), rotary=fn.RotaryEmbedding(4)),
    "window": fn.MultiHeadAttention(8, 2, is_causal=True, window=2, bias=False),
    "ALiBi": fn.MultiHeadAttention(9, 3, is_causal=True, alibi=True),
    "ALiBi, soft cap, grouped, window": fn.MultiHeadAttention(
        8, 4, is_causal=True, alibi=True, soft_cap=0.3, num_kv_heads=2, window=3
    ),
}


@pytest.mark.parametrize("sizes", [[1] * 6, [3, 1, 2], [6]], ids=str)
@pytest.mark.parametrize("layer", DECODERS.values(), ids=DECODERS)
def test_decoding_gives_what_the_whole_sequence_gives(layer, sizes):
    """Each call may decode one or several steps, with room to spare in the carry; the first carry does not change."""
    x, params = draw((2, 6, layer.embed_dim)), fn.tree.cast(layer.init(0), torch.float64)
    carry = first = layer.init_carry(2, 7, dtype=torch.float64)
    ys = []
    for part in x.split(sizes, 1):
        y, carry = layer.decode(params, part, carry)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), layer(params, x), **CLOSE)
    assert int(carry["steps"]) == 6
    assert not any(leaf.any() for leaf in first.values())


@pytest.mark.compiled
def test_decoding_works_without_a_batch_and_compiled():
    """A single sequence works, and one graph serves every step."""
    layer = DECODERS["grouped and rotary"]
    params, x, carry = layer.init(0), torch.ones(3, 8), layer.init_carry(None, 4)
    step = torch.compile(layer.decode, fullgraph=True, backend="aot_eager")
    for i in range(3):
        y, carry = step(params, x[i : i + 1], carry)
    torch.testing.assert_close(y, layer(params, x)[2:])


@given(st.integers(1, 4), st.integers(0, 5), st.booleans())
@settings(max_examples=20)
def test_rotary_products_depend_only_on_the_distance(pairs, shift, interleaved):
    """q · k at steps i and j equals that at i + shift and j + shift, and step 0 rotates nothing."""
    layer = fn.RotaryEmbedding(2 * pairs, interleaved=interleaved)
    q, k = draw((5, 2 * pairs), 1), draw((5, 2 * pairs), 2)
    later = layer.replace(offset=shift)
    torch.testing.assert_close(layer({}, q) @ layer({}, k).T, later({}, q) @ later({}, k).T, **CLOSE)
    assert torch.equal(layer({}, q)[0], q[0])
    steps = torch.arange(5).flip(0)
    torch.testing.assert_close(layer({}, (q.flip(0), steps)), layer({}, q).flip(0), **CLOSE)


def test_rotary_pairs_turn_as_complex_numbers():
    """Neighbors, or halves, are multiplied by e^{i t / base^(2 j / dim)}."""
    x = draw((3, 4))
    turn = torch.polar(torch.ones(3, 2, dtype=torch.float64), torch.arange(3.0).double()[:, None] / torch.tensor([1.0, 100.0]))
    neighbours = torch.view_as_real(torch.view_as_complex(x.view(3, 2, 2)) * turn).flatten(1)
    torch.testing.assert_close(fn.RotaryEmbedding(4, interleaved=True)({}, x), neighbours, **CLOSE)
    halves = torch.complex(x[:, :2], x[:, 2:]) * turn
    torch.testing.assert_close(fn.RotaryEmbedding(4)({}, x), torch.cat((halves.real, halves.imag), -1), **CLOSE)


def test_sinusoidal_positions_are_those_of_the_paper():
    """sin and cos of t / 10000^(2i / d), side by side."""
    p = fn.SinusoidalPositions()({}, torch.zeros(7, 6, dtype=torch.float64))
    for t, i in [(0, 0), (3, 1), (6, 2)]:
        angle = torch.tensor(t / 10000 ** (2 * i / 6), dtype=torch.float64)
        torch.testing.assert_close(p[t, 2 * i : 2 * i + 2], torch.stack((angle.sin(), angle.cos())), **CLOSE)


def test_learned_positions_are_an_embedding_of_the_step():
    """Value and gradient match torch.nn.Embedding at 0, 1, 2, added to x."""
    assert_twins(fn.LearnedPositions(5, 4), nn.Embedding(5, 4), draw((2, 3, 4)), call=lambda m, x: x + m(torch.arange(3)))


def test_masks_say_what_may_be_seen():
    """Causal, padding, local and combined masks are tried, and None for no mask."""
    assert torch.equal(fn.causal_mask(3), torch.ones(3, 3, dtype=torch.bool).tril())
    padding = fn.padding_mask(torch.tensor([0, 2]), 3)
    assert padding.tolist() == [[[[False] * 3]], [[[True, True, False]]]]
    assert torch.equal(fn.combine_masks(None, fn.causal_mask(3), padding), fn.causal_mask(3) & padding)
    assert fn.combine_masks(None) is None
    assert fn.local_mask(3, 3, (0, 1)).tolist() == [[True, True, False], [False, True, True], [False, False, True]]


def test_the_first_weights_of_multihead_attention_are_torch_s():
    """Projections are Xavier uniform, out_proj's weight is within a Linear's bounds, and biases are 0."""
    params = fn.MultiHeadAttention(64, 4).init(0)
    assert 0.98 < float(params["in_proj_weight"].abs().max()) / (6 / 256) ** 0.5 <= 1
    assert 0.98 < float(params["out_proj"]["weight"].abs().max()) * 8 <= 1
    assert not params["in_proj_bias"].any()
    assert not params["out_proj"]["bias"].any()


def test_normalized_queries_and_keys_do_not_feel_their_scale():
    """With RMSNorm of weight 1, doubling the projection of queries and keys changes nothing."""
    layer = fn.MultiHeadAttention(4, 2, qk_norm=fn.RMSNorm(2, eps=1e-12))
    params, x = fn.tree.cast(layer.init(0), torch.float64), draw((2, 3, 4))
    scale = torch.tensor([2.0] * 8 + [1.0] * 4, dtype=torch.float64).unsqueeze(1)
    larger = {**params, "in_proj_weight": params["in_proj_weight"] * scale}
    torch.testing.assert_close(layer(params, x), layer(larger, x), rtol=1e-8, atol=1e-8)


X, Q = torch.ones(2, 3, 4), torch.ones(2, 2, 3, 4)
MHA = fn.MultiHeadAttention(4, 2)
P = MHA.init(0)
MESSAGES = {
    "MultiHeadAttention: num_heads must divide embed_dim, got num_heads=3, embed_dim=4": lambda: fn.MultiHeadAttention(4, 3),
    "MultiHeadAttention: num_kv_heads must divide num_heads, got num_kv_heads=3, num_heads=4": lambda: fn.MultiHeadAttention(4, 4, num_kv_heads=3),
    "MultiHeadAttention: qk_norm must be a layer, such as RMSNorm, got 4": lambda: fn.MultiHeadAttention(4, 2, qk_norm=4),
    "out_proj.bias (4,), q_norm.weight (2,), k_norm.weight (2,), got in_proj_weight (12, 4)": lambda: fn.MultiHeadAttention(4, 2, qk_norm=fn.RMSNorm(2))(P, X),
    "MultiHeadAttention: rotary.dim must be the size of a head, 2, got RotaryEmbedding(dim=4)": lambda: fn.MultiHeadAttention(4, 2, rotary=fn.RotaryEmbedding(4)),
    "x must be a floating tensor with the axes (N, L, 4) or (L, 4), got x of shape (2, 3, 5)": lambda: MHA(P, torch.ones(2, 3, 5)),
    "key must be a floating tensor with the axes (N, L, 4) or (L, 4), like the others, got shapes (2, 3, 4) and (3, 4) and (2, 3, 4)": lambda: MHA(P, (X, X[0], X)),
    "x must be a tensor, (x, mask), (query, key, value) or (query, key, value, mask), got shapes (2, 3, 4) and (2, 3, 4)": lambda: MHA(P, (X,) * 5),
    "out_proj.weight (4, 4), out_proj.bias (4,), got in_proj_weight (12, 4), in_proj_bias (12,), out_proj.weight (4, 4)": lambda: MHA({**P, "out_proj": {"weight": P["out_proj"]["weight"]}}, X),
    "MultiHeadAttention(embed_dim=4, num_heads=2): x must have the dtype of the params, torch.float32, got torch.float64": lambda: MHA(P, X.double()),
    "the mask must be bool or torch.float32, and broadcast to (..., heads, L, S), (2, 2, 3, 3), got a tensor of shape (3, 2) and dtype torch.bool": lambda: MHA(P, (X, torch.ones(3, 2, dtype=torch.bool))),
    "decode needs one tensor, and a layer with is_causal=True that adds no keys and returns no weights, got a tensor of shape (2, 3, 4)": lambda: MHA.decode(P, X, MHA.init_carry(2, 3)),
    "the carry has room for at most 2 steps, got": lambda: DECODERS["plain"].decode(DECODERS["plain"].init(0), torch.ones(1, 3, 8), DECODERS["plain"].init_carry(1, 2)),
    "the carry has room for at most 3 steps, got 4": lambda: DECODERS["plain"].decode(DECODERS["plain"].init(0), torch.ones(1, 2, 8), {**DECODERS["plain"].init_carry(1, 3), "steps": torch.tensor(2)}),
    "apply must be given a key, apply(params, x, rng); for evaluation use inference(), got no key": lambda: fn.ScaledDotProductAttention(dropout_p=0.1)({}, (Q, Q, Q)),
    "x must be a tuple (q, k, v) or (q, k, v, mask), got shapes (2, 2, 3, 4) and (2, 2, 3, 4)": lambda: fn.ScaledDotProductAttention()({}, (Q, Q)),
    "q, k and v must have the same dtype, not torch.float32, torch.float64 and torch.float32": lambda: fn.ScaledDotProductAttention()({}, (Q, Q.double(), Q)),
    "v (..., heads, S, Ev) must fit each other, got shapes (2, 2, 3, 4) and (2, 2, 3, 4) and (2, 2, 2, 4)": lambda: fn.ScaledDotProductAttention()({}, (Q, Q, Q[:, :, :2])),
    "k (..., heads, S, E) and v (..., heads, S, Ev) must fit each other, got shapes (2, 2, 3, 4) and (2, 1, 3, 4)": lambda: fn.ScaledDotProductAttention()({}, (Q, Q[:, :1], Q[:, :1])),
    "k (..., groups, S, E) and v (..., groups, S, Ev) must fit each other, groups a divisor of heads, got shapes (2, 1, 3, 4)": lambda: fn.ScaledDotProductAttention(enable_gqa=True)({}, (Q[:, :1], Q, Q)),
    "the mask must be bool or torch.float32, and broadcast to (..., heads, L, S), (2, 2, 3, 3), got a tensor of shape (3,) and dtype torch.int64": lambda: fn.ScaledDotProductAttention()({}, (Q, Q, Q, torch.ones(3).long())),
    "ScaledDotProductAttention: window must be a whole number of at least 0, or a pair of them, the steps before and after, got -1": lambda: fn.ScaledDotProductAttention(window=-1),
    "ScaledDotProductAttention(): gy must have the shape of y, (2, 2, 3, 4), got gy of shape (3, 4)": lambda: fn.ScaledDotProductAttention().vjp({}, fn.ScaledDotProductAttention().apply({}, (Q, Q, Q))[1], Q[0, 0]),
    "combine_masks: every mask must be a bool tensor, True where a query may see a key": lambda: fn.combine_masks(Q),
    "RotaryEmbedding: dim must be even, got 3": lambda: fn.RotaryEmbedding(3),
    "RotaryEmbedding(dim=2): x must have the axes (..., length, dim=2), got x of shape (2, 3, 4)": lambda: fn.RotaryEmbedding(2)({}, X),
    "SinusoidalPositions(): x must have the axes (..., length, features), got x of shape (4,)": lambda: fn.SinusoidalPositions()({}, X[0, 0]),
    "LearnedPositions(max_length=2, dim=4): x must not be longer than max_length=2, got x of shape (2, 3, 4)": lambda: fn.LearnedPositions(2, 4)(fn.LearnedPositions(2, 4).init(0), X),
    "LearnedPositions(max_length=5, dim=3): x must have the axes (..., length, dim=3), got x of shape (2, 3, 4)": lambda: fn.LearnedPositions(5, 3)(fn.LearnedPositions(5, 3).init(0), X),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)


def test_steps_of_rotary_embedding_do_not_broadcast_x():
    """Steps with more axes than x would give y another shape."""
    with pytest.raises(ValueError, match="steps must be a tensor that broadcasts to the axes of x except the last"):
        fn.RotaryEmbedding(4)({}, (torch.randn(3, 4), torch.arange(3).expand(5, 3)))


def test_gradients_have_the_order_of_the_params():
    """Learned keys precede the output's projection in both."""
    layer = fn.MultiHeadAttention(4, 2, add_bias_kv=True)
    params = layer.init(0)
    y, cache = layer.apply(params, torch.randn(2, 3, 4))
    assert [*layer.grads(params, cache, y)] == [*params]


@pytest.fixture
def without_fallback():
    """Make vmap raise an error if it lacks a kernel, instead of warning and calling one for each entry."""
    torch._C._functorch._set_vmap_fallback_enabled(False)
    yield
    torch._C._functorch._set_vmap_fallback_enabled(True)


@pytest.mark.usefixtures("without_fallback")
def test_a_jacobian_takes_the_formula_for_all_gradients_at_once():
    """The flash kernel computes y, but its backward kernel cannot be batched."""
    layer, x = fn.MultiHeadAttention(4, 2, is_causal=True), torch.randn(1, 3, 4, dtype=torch.float64)
    params = fn.tree.cast(layer.init(0), torch.float64)
    want = torch.func.jacrev(lambda x: layer(params, x))(x)
    torch.testing.assert_close(fn.jacobian(layer, params, x), want)
