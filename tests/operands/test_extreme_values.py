"""Reductions, poolings, attention and parametrizations of infinities, zeros, and numbers whose squares overflow."""

import math

import pytest
import torch
from torch import Tensor

import funcnet as fn
from funcnet import random, tree

INF, NAN = math.inf, math.nan
HALVES = (torch.bfloat16, torch.float16)


def both(layer: fn.Layer, x: object, params: object = None) -> tuple[Tensor, object]:
    """Return y and the gradient of x for a gy of ones."""
    params = {} if params is None else params
    y, cache = layer.apply(params, x)
    return y, layer.vjp(params, cache, torch.ones_like(y))[1]


SHARES = {
    (-INF, -INF): (0.5, 0.5),
    (INF, INF): (0.5, 0.5),
    (INF, 1.0): (1.0, 0.0),
    (-INF, 0.0): (0.0, 1.0),
    (INF, -INF): (1.0, 0.0),
    (-INF, -INF, -INF): (1 / 3, 1 / 3, 1 / 3),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("x", SHARES, ids=str)
def test_log_sum_exp_shares_its_gradient_among_infinities(x: tuple[float, ...], dtype: torch.dtype) -> None:
    """The largest share it equally; a row with NaN has NaN, and other rows are not affected."""
    want = torch.tensor(SHARES[x], dtype=dtype)
    rows = torch.tensor([x, [0.0] * len(x), [NAN] * len(x)], dtype=dtype)
    for gx in (both(fn.LogSumExp(), rows)[1], torch.func.vmap(lambda row: both(fn.LogSumExp(), row)[1])(rows)):
        torch.testing.assert_close(gx[0], want)
        torch.testing.assert_close(gx[1], torch.full_like(want, 1 / len(x)))
        assert gx[2].isnan().all()


def test_reductions_of_infinities() -> None:
    """The maximum of -∞ is -∞, and its gradient is shared."""
    for layer, value in ((fn.Max(), -INF), (fn.Min(), INF), (fn.GlobalMaxPool(), -INF)):
        y, gx = both(layer, torch.full((1, 1, 2), value))
        assert y.flatten().tolist() == [value]
        assert gx.sum() == 1  # type: ignore[attr-defined]
    assert both(fn.Sum(), torch.tensor([INF, 1.0]))[1].tolist() == [1.0, 1.0]  # type: ignore[attr-defined]
    assert both(fn.Max(), torch.tensor([NAN, 1.0]))[0].isnan()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_windows_of_infinities(axes: int) -> None:
    """The padding, which is -∞ too, is not chosen before -∞; a mean of ∞ is ∞ in its own windows only."""
    for size in (4, 26):  # kernels differ
        x = torch.full((1, 1, *(size,) * axes), -INF)
        layer = getattr(fn, f"MaxPool{axes}d")(2, padding=1)
        y, gx = both(layer, x)
        assert y.isneginf().all()
        assert gx.sum() == y.numel()  # type: ignore[attr-defined]
        y, gx = both(getattr(fn, f"MinPool{axes}d")(2, padding=1), -x)
        assert y.isposinf().all()
        assert gx.sum() == y.numel()  # type: ignore[attr-defined]
        x = torch.zeros_like(x)
        x.view(-1)[0] = INF
        y, gx = both(getattr(fn, f"AvgPool{axes}d")(2), x)
        assert y.isposinf().sum() == 1
        assert not y.isnan().any()
        torch.testing.assert_close(gx, torch.full_like(x, 0.5**axes))


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
def test_a_power_average_of_zeros_is_0_with_finite_gradients(p: float, dtype: torch.dtype) -> None:
    """The gradient is 0, but 1 for p = 1, a plain sum. Beside a 4, the slope at 0 is infinite for p below 1."""
    layer, x = fn.LPPool1d(p, 2), torch.tensor([[[0.0, 0.0, 0.0, 4.0]]], dtype=dtype)
    y, gx = both(layer, x)
    torch.testing.assert_close(y.flatten(), torch.tensor([0.0, 4.0], dtype=dtype))
    slope = float(p == 1)
    beside = INF if p < 1 else slope
    torch.testing.assert_close(gx.flatten(), torch.tensor([slope, slope, beside, 1.0], dtype=dtype))  # type: ignore[attr-defined]
    cache = layer.apply({}, x)[1]
    assert not layer.vjp({}, cache, torch.zeros_like(y))[1].any()


def test_zeros_do_not_hide_powers_that_vanish() -> None:
    """Windows of zeros and of 1e-30 are side by side."""
    x = torch.tensor([[[0.0, 0.0, 3e-30, 4e-30]]])
    y, gx = both(fn.LPPool1d(2.0, 2), x)
    torch.testing.assert_close(y.flatten() * 1e30, torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(gx.flatten(), torch.tensor([0.0, 0.0, 0.6, 0.8]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("wrapped", [fn.weight_norm, fn.spectral_norm])
def test_a_weight_of_zeros_stays_zeros(wrapped: object, dtype: torch.dtype) -> None:
    """Divisors of 0 become 1: w = 0, and the gradients match autograd through a product with a constant."""
    layer = wrapped(fn.Linear(3, 2, initializer="zeros"))  # type: ignore[operator]
    params = tree.cast(layer.init(0), dtype)
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype)
    y, cache = layer.apply(params, x)
    assert torch.equal(y, torch.zeros_like(y))
    grads = layer.grads(params, cache, torch.ones_like(y))
    weight = grads["parametrizations"]["weight"]
    assert all(leaf.isfinite().all() for leaf in tree.leaves(weight) if leaf is not None)
    if wrapped is fn.spectral_norm:
        assert weight["original"].any()
        moved = layer.update_stats(params, cache)
        assert all(leaf.isfinite().all() for leaf in tree.leaves(moved))


def test_a_direction_of_zeros_has_the_gradient_of_its_formula() -> None:
    """With a magnitude other than 0 the direction learns: its gradient is g gw, however it is computed."""
    layer = fn.weight_norm(fn.Linear(3, 2, bias=False))
    params = layer.init(0)
    at = "parametrizations.weight"
    v = fn.tree.at(params, f"{at}.original1").clone()
    v[0] = 0
    params = fn.tree.replace(params, f"{at}.original1", v)
    x = torch.tensor([[1.0, -2.0, 3.0]])
    y, cache = layer.apply(params, x)
    grads = fn.tree.at(layer.grads(params, cache, torch.ones_like(y)), at)
    g = fn.tree.at(params, f"{at}.original0")
    torch.testing.assert_close(grads["original1"][0], g[0] * x[0])
    assert grads["original0"][0] == 0
    derived = fn.tree.at(torch.func.grad(lambda p: layer(p, x).sum())(params), at)
    torch.testing.assert_close(derived["original1"], grads["original1"])
    torch.testing.assert_close(derived["original0"], grads["original0"])


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e25, 1e37])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_of_any_length(scale: float, dim: int | None) -> None:
    """A direction does not depend on the size of its numbers."""
    layer = fn.weight_norm(fn.Linear(5, 4), dim=dim)
    params = layer.init(0)
    at = "parametrizations.weight.original1"
    params = fn.tree.replace(params, at, fn.tree.at(params, at) * scale)
    x, gy = random.normal(0, (3, 5)), random.normal(1, (3, 4))
    wide = tree.cast((params, x, gy), torch.float64)
    y, cache = layer.apply(params, x)
    other, kept = layer.apply(*wide[:2])
    got, want = layer.vjp(params, cache, gy), layer.vjp(wide[0], kept, wide[2])
    for one, two in zip(tree.leaves((y, got)), tree.leaves((other, want)), strict=True):
        torch.testing.assert_close(one.double(), two, rtol=0.0, atol=2e-6 * two.abs().max().item())


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("options", [{}, {"return_weights": True}, {"enable_gqa": True}], ids=str)
def test_scores_in_half_precision_are_in_single(options: dict[str, bool], half: torch.dtype) -> None:
    """A bias of -100 everywhere changes nothing: values and gradients are within the rounding of q, k and v."""
    layer = fn.ScaledDotProductAttention(**options)
    q, k, v = (random.normal(i, (1, 2, 6, 4)).to(half) for i in range(3))
    mask = torch.full((6, 6), -100.0)

    def results(dtype: torch.dtype) -> list[Tensor]:
        x = tree.cast((q, k, v, mask), dtype)
        y, cache = layer.apply({}, x)
        gy = tree.map(lambda leaf: random.normal(9, leaf.shape).to(half).to(dtype), y)
        return tree.leaves((y, layer.vjp({}, cache, gy)[1]))

    for got, want in zip(results(half), results(torch.float64), strict=True):
        assert got.dtype is half
        assert (got.double() - want).abs().max() <= 2 * torch.finfo(half).eps * max(want.abs().max().item(), 0.05)


@pytest.mark.parametrize("half", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("kind", [torch.bool, None])
def test_a_query_that_sees_nothing_is_zero(kind: torch.dtype | None, half: torch.dtype) -> None:
    """The flash kernel and the formula are tried; there is no gradient."""
    q, k, v = (random.normal(i, (1, 2, 3, 4)).to(half) for i in range(3))
    allowed = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    mask = allowed if kind else torch.zeros(3, 3, dtype=half).masked_fill(~allowed, -INF)
    y, cache = fn.ScaledDotProductAttention().apply({}, (q, k, v, mask))
    assert not y[:, :, 1].any()
    gq, gk, gv, _ = fn.ScaledDotProductAttention().vjp({}, cache, torch.ones_like(y))[1]
    assert not gq[:, :, 1].any()
    assert all(g.isfinite().all() for g in (gq, gk, gv))


@pytest.mark.parametrize("offsets", [False, True])
def test_the_largest_of_a_bag_may_be_infinite(offsets: bool) -> None:
    """-∞ is the maximum of a bag of -∞, and its row gets the gradient; an empty bag is 0 and has none."""
    layer = fn.EmbeddingBag(4, 2, mode="max", padding_idx=3)
    params = {"weight": torch.tensor([[-INF, 1.0], [-INF, 2.0], [5.0, -INF], [0.0, 0.0]])}
    x = (torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 3])) if offsets else torch.tensor([[0, 1], [2, 3], [3, 3]])
    y, cache = layer.apply(params, x)
    assert y.tolist() == [[-INF, 2.0], [5.0, -INF], [0.0, 0.0]]
    assert layer.grads(params, cache, torch.ones_like(y))["weight"].tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_shares_of_many_equals_in_half_precision(half: torch.dtype) -> None:
    """Their number is an integer: float16 has no number above 65504."""
    for gx in (
        both(fn.Max(), torch.zeros(70000, dtype=half))[1],
        fn.SegmentPool("max").vjp({}, fn.SegmentPool("max").apply({}, (torch.zeros(70000, dtype=half), torch.tensor([70000])))[1], torch.ones(1, dtype=half))[1][0],
    ):  # fmt: skip
        torch.testing.assert_close(gx, torch.full((70000,), 1 / 70000, dtype=half))


@pytest.mark.parametrize("count", [10, 12_000])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_few_norms_and_many_are_looked_at_alike(count, scale):
    """One window in the middle is out of range."""
    x = torch.tensor([3.0, 4.0]).repeat(1, 1, count)
    x[..., count : count + 2] *= scale
    y = fn.LPPool1d(2, 2)({}, x)
    want = torch.full((1, 1, count), 5.0)
    want[..., count // 2] *= scale
    torch.testing.assert_close(y, want, rtol=1e-6, atol=0.0)
