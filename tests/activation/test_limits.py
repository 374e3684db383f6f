"""Activations at ±∞ and for large inputs: limits in eager mode, under vmap, compiled, and for torch.func."""

import math

import pytest
import torch

import funcnet as fn

INF = math.inf
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# y and gx at -∞, y and gx at ∞
LIMITS = {
    fn.ReLU(): (0, 0, INF, 1),
    fn.ELU(): (-1, 0, INF, 1),
    fn.CELU(2.0): (-2, 0, INF, 1),
    fn.GELU(): (0, 0, INF, 1),
    fn.GELU("tanh"): (0, 0, INF, 1),
    fn.SiLU(): (0, 0, INF, 1),
    fn.Mish(): (0, 0, INF, 1),
    fn.Dish(): (0, 0, INF, 1),
    fn.Hardswish(): (0, 0, INF, 1),
    fn.Hardswish(0.2): (0, 0, INF, 1),
    fn.Sigmoid(): (0, 0, 1, 0),
    fn.Tanh(): (-1, 0, 1, 0),
    fn.Hardtanh(): (-1, 0, 1, 0),
    fn.Hardsigmoid(): (0, 0, 1, 0),
    fn.SparseSigmoid(): (0, 0, 1, 0),
    fn.Softsign(): (-1, 0, 1, 0),
    fn.LogSigmoid(): (-INF, 1, 0, 0),
    fn.Softplus(): (0, 0, INF, 1),
    fn.Squareplus(): (0, 0, INF, 1),
    fn.SparsePlus(): (0, 0, INF, 1),
    fn.Softshrink(): (-INF, 1, INF, 1),
    fn.Hardshrink(): (-INF, 1, INF, 1),
    fn.Tanhshrink(): (-INF, 1, INF, 1),
    fn.Abs(): (INF, -1, INF, 1),
    fn.Erf(): (-1, 0, 1, 0),
    fn.Gaussian(): (0, 0, 0, 0),
}


def both(layer, x):
    """Return y and gx for a gy of ones."""
    y, cache = layer.apply({}, x)
    return y, layer.vjp({}, cache, torch.ones_like(y))[1]


def expected(layer, dtype):
    """Return y and gx at -∞ and ∞, and NaN at NaN."""
    low, low_slope, high, high_slope = LIMITS[layer]
    return torch.tensor([low, high, math.nan], dtype=dtype), torch.tensor([low_slope, high_slope], dtype=dtype)


def ends(dtype):
    """Return an x with both ends and NaN."""
    return torch.tensor([-INF, INF, math.nan], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", LIMITS, ids=repr)
def test_an_activation_has_its_limits_at_both_ends(layer, dtype):
    """Value and gradient have the limits, and NaN stays NaN; tensors with few and with many elements are tried."""
    want_y, want_gx = expected(layer, dtype)
    for copies in (1, 30_000):
        y, gx = both(layer, ends(dtype).repeat(copies))
        torch.testing.assert_close(y, want_y.repeat(copies), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(gx.reshape(-1, 3)[:, :2], want_gx.expand(copies, 2), rtol=0, atol=0)


@pytest.mark.parametrize("layer", LIMITS, ids=repr)
def test_an_activation_has_its_limits_when_mapped_and_differentiated(layer):
    """Under vmap the limits are the same as in eager mode; torch.func's derivative of ``apply`` also equals vjp there."""
    want_y, want_gx = expected(layer, torch.float32)
    x = ends(torch.float32)
    y, gx = torch.func.vmap(lambda x: both(layer, x))(x)
    torch.testing.assert_close((y, gx[:2]), (want_y, want_gx), rtol=0, atol=0, equal_nan=True)
    y, pull = torch.func.vjp(lambda x: layer({}, x), x[:2])
    torch.testing.assert_close((y, *pull(torch.ones(2))), (want_y[:2], want_gx), rtol=0, atol=0)


@pytest.mark.compiled
def test_compiled_activations_have_their_limits():
    """One graph computes all of them."""
    work = torch.compile(lambda x: [both(layer, x) for layer in LIMITS], fullgraph=True)
    for layer, (y, gx) in zip(LIMITS, work(ends(torch.float32)), strict=True):
        want_y, want_gx = expected(layer, torch.float32)
        torch.testing.assert_close((y, gx[:2]), (want_y, want_gx), rtol=1e-6, atol=0, equal_nan=True, msg=repr(layer))


@pytest.mark.parametrize(
    ("layer", "want"), [(fn.ELU(), math.exp(-20)), (fn.CELU(2.0), math.exp(-10)), (fn.SELU(), math.exp(-20))], ids=repr
)
def test_the_gradient_far_below_0_is_right_to_its_last_digits(layer, want):
    """The gradient is computed from x, because y is rounded to -α there."""
    scale = 1.7580993408473766 if isinstance(layer, fn.SELU) else 1.0
    _, gx = both(layer, torch.tensor([-20.0]))
    torch.testing.assert_close(gx, torch.tensor([want * scale]), rtol=3e-7, atol=0)


@pytest.mark.parametrize("layer", [layer for layer, limits in LIMITS.items() if limits[2:] == (INF, 1)], ids=repr)
def test_a_large_number_beside_an_infinite_one_is_kept(layer):
    """Its value changes by at most half an ulp, or by the rounding of torch's kernel."""
    x = torch.tensor([1e5 + 0.0078125, 1e30, 5e37, INF])
    y, gx = both(layer, x)
    torch.testing.assert_close(y, x, rtol=2e-7, atol=1)
    assert torch.equal(gx, torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("x", "want"),
    [
        ((6e4, -6e4, 6e4, 0.0), (0.5, 0.0, 0.5, 0.0)),
        ((INF, 1.0, -INF, 2.0), (1.0, 0.0, 0.0, 0.0)),
        ((INF, 1.0, INF, 2.0), (0.5, 0.0, 0.5, 0.0)),
        ((-INF, -INF, -INF, -INF), (0.25, 0.25, 0.25, 0.25)),
        ((-INF, 1.0, 1.0, -INF), (0.0, 0.5, 0.5, 0.0)),
    ],
)
def test_torch_func_differentiates_logsumexp_as_vjp_does(x, want, dtype):
    """The shares of infinite elements agree too, in forward and reverse mode, and no second derivative is NaN."""
    layer, x, want = fn.LogSumExp(), torch.tensor(x, dtype=dtype), torch.tensor(want, dtype=dtype)
    y, cache = layer.apply({}, x)
    torch.testing.assert_close(torch.func.grad(lambda x: layer({}, x))(x), want)
    torch.testing.assert_close(layer.vjp({}, cache, torch.ones_like(y))[1], want)
    assert torch.func.hessian(lambda x: layer({}, x))(x).isfinite().all()
    torch.testing.assert_close(torch.func.jvp(lambda x: layer({}, x), (x,), (torch.ones_like(x),))[0], y)
