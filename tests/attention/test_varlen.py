"""Attention without padding compared with padding and a mask, and the errors it raises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import CLOSE, draw

import funcnet as fn


@st.composite
def packed(draw_from):
    """Draw options, queries, keys and values of concatenated sequences, and their lengths, some of them 0."""
    count, group = draw_from(st.integers(0, 4)), draw_from(st.sampled_from([1, 2]))
    queries, keys = ([draw_from(st.integers(0, 4)) for _ in range(count)] for _ in range(2))
    keys = queries if draw_from(st.booleans()) else keys
    spare, width, values = draw_from(st.integers(0, 2)), draw_from(st.integers(1, 3)), draw_from(st.sampled_from([None, 2]))
    seed, heads = draw_from(st.integers(0, 99)), draw_from(st.integers(1, 2))
    x = [draw((sum(counts) + spare, n, size), seed + i) for i, (counts, n, size) in enumerate(
        [(queries, heads * group, width), (keys, heads, width), (keys, heads, values or width)])]  # fmt: skip
    window = draw_from(st.sampled_from([None, 1, (0, 2), (2, 0)]))
    options = {"is_causal": draw_from(st.booleans()), "scale": draw_from(st.sampled_from([None, 0.7])), "window": window}
    return {**options, "enable_gqa": group > 1}, tuple(x), queries, keys


def padded(x, counts):
    """Return (N, heads, longest, size), and which of its rows are valid."""
    steps = torch.arange(max(counts, default=0)).unsqueeze(0) < torch.tensor(counts, dtype=torch.int64).unsqueeze(1)
    rows = x.new_zeros((*steps.shape, *x.shape[1:]))
    rows[steps] = x[: sum(counts)]
    return rows.transpose(1, 2), steps


def unpadded(x, steps, like):
    rows = x.transpose(1, 2)[steps]
    return torch.cat((rows, rows.new_zeros(len(like) - len(rows), *rows.shape[1:])))


@given(packed())
@settings(max_examples=100)
def test_it_is_attention_with_padding_and_a_mask(case):
    """Value and gradients agree for any lengths, with other keys too; rows after the last sequence give 0 and no gradient."""
    options, x, queries, keys = case
    layer, lengths = fn.VarlenAttention(**options), [torch.tensor(n, dtype=torch.int64) for n in (queries, keys)]
    y, cache = layer.apply({}, (*x, *lengths))
    gy = draw(y.shape, 7)
    *gx, none, other = layer.vjp({}, cache, gy)[1]
    (q, rows), (k, columns), (v, _) = (padded(one, n) for one, n in zip(x, (queries, keys, keys), strict=True))
    twin = fn.ScaledDotProductAttention(**options)
    want, cache = twin.apply({}, (q, k, v, columns[:, None, None, :]))
    gq, gk, gv, _ = twin.vjp({}, cache, padded(gy, queries)[0])[1]
    torch.testing.assert_close(y, unpadded(want, rows, x[0]), **CLOSE)
    for got, g, real, one in zip(gx, (gq, gk, gv), (rows, columns, columns), x, strict=True):
        torch.testing.assert_close(got, unpadded(g, real, one), **CLOSE)
    assert none is other is None


@given(packed())
@settings(max_examples=40)
def test_one_by_one_and_all_with_a_mask_give_the_same(case):
    """Under vmap lengths cannot be read; the results match eager mode."""
    options, x, queries, keys = case
    layer, lengths = fn.VarlenAttention(**options), [torch.tensor(n, dtype=torch.int64) for n in (queries, keys)]

    def work(*x):
        y, cache = layer.apply({}, x)
        return y, *layer.vjp({}, cache, y + 1)[1][:3]

    mapped = torch.func.vmap(work)(*[one.unsqueeze(0) for one in (*x, *lengths)])
    torch.testing.assert_close(work(*x, *lengths), tuple(one[0] for one in mapped), **CLOSE)


def test_a_cache_keeps_y_once():
    """Each sequence's y in the cache is a view of y."""
    layer, x = fn.VarlenAttention(), tuple(torch.ones(5, 2, 3) for _ in range(3))
    y, (_, kept) = layer.apply({}, (*x, torch.tensor([2, 3])))
    assert [one["y"].untyped_storage().data_ptr() for _, one in kept["each"]] == [y.untyped_storage().data_ptr()] * 2


X, N = torch.ones(4, 2, 3), torch.tensor([1, 3])
MESSAGES = {
    "VarlenAttention(): x must be a tuple (q, k, v, lengths) or (q, k, v, lengths, lengths of keys), got shapes (4, 2, 3) and (4, 2, 3) and (4, 2, 3)": lambda: fn.VarlenAttention()({}, (X, X, X)),
    "lengths must be at least 0, and add up to at most 4, the number of rows, got [1, 4]": lambda: fn.VarlenAttention()({}, (X, X, X, torch.tensor([1, 4]))),
    "lengths must be at least 0, and add up to at most 3, the number of rows, got [1, 3]": lambda: fn.VarlenAttention()({}, (X, X[1:], X[1:], N)),
    "lengths must be at least 0, and add up to at most 4, the number of rows, got [2, -1]": lambda: fn.VarlenAttention()({}, (X, X, X, torch.tensor([2, -1]))),
    "lengths must be integers with one axis, as many for keys as for queries, got a tensor of shape (2,) and dtype torch.float32": lambda: fn.VarlenAttention()({}, (X, X, X, N.float())),
    "lengths must be integers with one axis, as many for keys as for queries, got a tensor of shape (2,)": lambda: fn.VarlenAttention()({}, (X, X, X, N, N[:1])),
    "q (T, heads, E), k (S, heads, E) and v (S, heads, Ev) must fit each other, got shapes (4, 2, 3) and (4, 2, 3) and (3, 2, 3) and (2,)": lambda: fn.VarlenAttention()({}, (X, X, X[1:], N)),
    "q (T, heads, E), k (S, heads, E) and v (S, heads, Ev) must fit each other, got shapes (2, 3) and (4, 2, 3)": lambda: fn.VarlenAttention()({}, (X[0], X, X, N)),
    "k (..., heads, S, E) and v (..., heads, S, Ev) must fit each other, got shapes (1, 2, 1, 3) and (1, 1, 1, 3)": lambda: fn.VarlenAttention()({}, (X, X[:, :1], X[:, :1], N)),
    "q, k and v must have the same dtype": lambda: fn.VarlenAttention()({}, (X, X.double(), X, N)),
    "VarlenAttention(): gy must have the shape of y, (4, 2, 3), got gy of shape (3, 2, 3)": lambda: fn.VarlenAttention().vjp({}, fn.VarlenAttention().apply({}, (X, X, X, N))[1], X[1:]),
    "VarlenAttention(): params must be an empty dict": lambda: fn.VarlenAttention()({"a": X}, (X, X, X, N)),
    ": window must be a whole number of at least 0, or a pair of them": lambda: fn.VarlenAttention(window=-1),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
