"""Radial basis functions: values and gradients compared with torch autograd, their precision, and the error messages."""

import pytest
import torch

import funcnet as fn


def draw(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_torch(x, c, gy, gamma):
    """Return y, gx and gc, computed with torch from the differences."""
    x, c = x.clone().requires_grad_(), c.clone().requires_grad_()
    y = torch.exp(-gamma * (x.unsqueeze(-2) - c).square().sum(-1))
    return y.detach(), *torch.autograd.grad(y, (x, c), gy)


@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 4, 3), (0, 3), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("gamma", [1.0, 0.2])
def test_rbf_is_its_formula(shape, gamma):
    """Output and both gradients agree with autograd of the formula, with a batch, without one, and for an empty batch."""
    layer, x, c, gy = fn.RBF(3, 4, gamma), draw(shape, 0), draw((4, 3), 1), draw((*shape[:-1], 4), 2)
    y, cache = layer.apply({"centers": c}, x)
    gparams, gx = layer.vjp({"centers": c}, cache, gy)
    for got, want in zip((y, gx, gparams["centers"]), by_torch(x, c, gy, gamma), strict=True):
        torch.testing.assert_close(got, want)


def test_rbf_is_one_at_a_center():
    """The value is exactly 1, never more, although rounding could make a squared distance negative."""
    c = draw((6, 5), 3, torch.float32)
    y = fn.RBF(5, 6)({"centers": c}, c)
    assert y.max() <= 1
    torch.testing.assert_close(y.diagonal(), torch.ones(6))


def test_a_common_offset_costs_no_precision():
    """Far from 0 the results are the same, as far as the inputs are representable."""
    x, c = draw((20, 3), 4, torch.float32) + 1000, draw((4, 3), 5, torch.float32) + 1000
    exact = torch.exp(-(x.double().unsqueeze(-2) - c.double()).square().sum(-1))
    torch.testing.assert_close(fn.RBF(3, 4)({"centers": c}, x).double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_are_in_float32(dtype):
    """Sums over many features far from the centers equal those in float64, rounded once."""
    x, c = 300 + draw((8, 512), 6).to(dtype) / 50, 300 + draw((4, 512), 7).to(dtype) / 50
    layer, gy = fn.RBF(512, 4, 0.01), draw((8, 4), 8).to(dtype)
    y, cache = layer.apply({"centers": c}, x)
    gparams, gx = layer.vjp({"centers": c}, cache, gy)
    wants = by_torch(x.double(), c.double(), gy.double(), 0.01)
    for got, want in zip((y, gx, gparams["centers"]), wants, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want.to(dtype), rtol=2e-2, atol=1e-3)


def test_rbf_infers_its_input_size():
    """``in_features`` is the size of the last axis."""
    assert fn.infer_sizes(fn.RBF(None, 4), (2, 3)) == fn.RBF(3, 4)


L, P, X = fn.RBF(3, 2), fn.RBF(3, 2).init(0), torch.ones(2, 3)
MESSAGES = {
    "RBF: gamma must be a finite number above 0.0, got 0.0": lambda: fn.RBF(3, 2, 0.0),
    "RBF: out_features must be a whole number of at least 1, got 0": lambda: fn.RBF(3, 0),
    "RBF(in_features=None, out_features=2): in_features must be inferred first, with fn.infer_sizes(net, x), got None": lambda: fn.RBF(None, 2).init(0),
    "RBF(in_features=3, out_features=2): the last axis of x must be in_features=3, got x of shape (2, 2)": lambda: L(P, X[:, :2]),
    "RBF(in_features=3, out_features=2): the last axis of x must be in_features=3, got x of shape (2, 1)": lambda: L(P, X[:, :1]),
    "RBF(in_features=3, out_features=2): x must have the dtype of the params, torch.float32, got torch.float64": lambda: L(P, X.double()),
    "RBF(in_features=3, out_features=2): params must be a dict of centers (2, 3), got an empty dict": lambda: L({}, X),
    "RBF(in_features=3, out_features=2): gy must have the shape of y, (2, 2), got gy of shape (2,)": lambda: L.vjp(P, L.apply(P, X)[1], X[0, :2]),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert str(caught.value) == message
