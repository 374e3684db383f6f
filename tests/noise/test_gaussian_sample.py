"""Samples of a normal distribution: their moments, their gradients through the draw, and the errors."""

import math

import pytest
import torch

import funcnet as fn

N = 100_000


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (3.0, -2.0), (-1.0, 1.5)])
def test_samples_have_the_mean_and_the_variance(mean, log_variance):
    """Both moments are within 5 standard errors for 100 000 draws."""
    x = (torch.full((N,), mean, dtype=torch.float64), torch.full((N,), log_variance, dtype=torch.float64))
    y, std = fn.GaussianSample()({}, x, 1), math.exp(log_variance / 2)
    assert y.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(N))
    assert y.var().item() == pytest.approx(std**2, abs=5 * std**2 * math.sqrt(2 / N))


def test_a_variance_of_zero_gives_the_mean():
    """``inference()`` gives it too; a log variance of -∞ has the gradient 0."""
    x = (torch.tensor([1.0, 2.0]), torch.full((2,), -math.inf))
    y, cache = fn.GaussianSample().apply({}, x, 0)
    assert torch.equal(y, x[0])
    assert fn.tree.equal(fn.GaussianSample().vjp({}, cache, y)[1], (y, torch.zeros(2)))
    assert fn.GaussianSample().inference()({}, x) is x[0]


def test_the_gradient_of_the_mean_square_is_that_of_its_expectation():
    """E y² = m² + exp(v), whose slopes are 2 m and exp(v)."""
    mean, log_variance = torch.full((N,), 0.7, dtype=torch.float64), torch.full((N,), -0.4, dtype=torch.float64)
    y, cache = fn.GaussianSample().apply({}, (mean, log_variance), 2)
    gm, gv = fn.GaussianSample().vjp({}, cache, 2 * y)[1]
    assert gm.mean().item() == pytest.approx(1.4, abs=0.03)
    assert gv.mean().item() == pytest.approx(math.exp(-0.4), abs=0.03)


X = torch.ones(2, 3)
MESSAGES = {
    "GaussianSample(): apply must be given a key": lambda: fn.GaussianSample()({}, (X, X)),
    "GaussianSample(): x must be a pair of floating tensors, got x of shape (2, 3)": lambda: fn.GaussianSample()({}, X, 0),
    "GaussianSample(): x must be a pair of one shape, dtype and device, got shapes (2, 3) and (3,)": lambda: fn.GaussianSample()({}, (X, X[0]), 0),
    "GaussianSample(): gy must have the shape of y, (2, 3), got gy of shape (3,)": lambda: fn.GaussianSample().vjp({}, X, X[0]),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the layer, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
