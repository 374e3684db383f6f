"""The divergence of normal distributions compared with torch's, its limits, and the errors."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import funcnet as fn
from funcnet import random


def pairs(shape=(4, 3), dtype=torch.float64):
    """Draw two pairs of means and log variances."""
    drawn = [random.normal(seed, shape, dtype=dtype).requires_grad_() for seed in range(4)]
    return tuple(drawn[:2]), tuple(drawn[2:])


REDUCTIONS = {"mean": torch.mean, "sum": torch.sum, "batch": lambda t: t.sum() / len(t), "none": lambda t: t}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("has_prior", [True, False])
def test_it_is_the_divergence_of_torch(reduction, has_prior):
    """Value and the gradients of both pairs agree."""
    y, prior = pairs()
    target = prior if has_prior else None
    other = prior if has_prior else (torch.zeros(()), torch.zeros(()))
    want = REDUCTIONS[reduction](kl_divergence(*[Normal(m, torch.exp(v / 2)) for m, v in (y, other)]))
    loss = fn.GaussianKL(reduction)
    value, gy = loss.value_and_grad(y, target)
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(gy, torch.autograd.grad(want.sum(), y, retain_graph=True))
    if has_prior:
        gtarget = loss.as_layer().vjp({}, loss.as_layer().apply({}, (y, target))[1], torch.ones_like(value))[1][1]
        torch.testing.assert_close(gtarget, torch.autograd.grad(want.sum(), prior))


def test_equal_distributions_are_at_distance_zero():
    """The gradient is 0 too; for nearly equal ones the divergence is of the order of the squared difference."""
    y, _ = pairs()
    value, gy = fn.GaussianKL().value_and_grad(y, y)
    assert value == 0
    assert not any(g.any() for g in gy)
    near = fn.GaussianKL("sum")((torch.zeros(1), torch.full((1,), 1e-3)), None)
    assert near.item() == pytest.approx(2.5e-7, abs=1e-10)


def test_half_precision_is_computed_in_single():
    """Value and gradients have the dtype of y, and a square beyond float16 still has its gradient."""
    y = (torch.full((1,), 300.0, dtype=torch.float16), torch.zeros(1, dtype=torch.float16))
    value, gy = fn.GaussianKL().value_and_grad(y, None)
    assert (value.item(), gy[0].item(), gy[0].dtype) == (44992.0, 300.0, torch.float16)  # 45000, rounded


def test_a_batch_counts_for_its_terms():
    """The mean over all rows needs this weight."""
    _, prior = pairs()
    assert [fn.GaussianKL(reduction).weight_of(prior) for reduction in ("mean", "batch")] == [12, 4]


X = torch.ones(2, 3)
MESSAGES = {
    "GaussianKL: reduction must be one of 'mean', 'sum', 'none', 'batch', got 'max'": lambda: fn.GaussianKL("max"),
    "GaussianKL(): y must be a pair (mean, log_variance) of dense floating tensors, got a tensor of shape (2, 3)": lambda: fn.GaussianKL()(X, None),
    "GaussianKL(): target must be a pair (mean, log_variance) of dense floating tensors, got a tuple of 3": lambda: fn.GaussianKL()((X, X), (X, X, X)),
    "GaussianKL(): means and log variances must have the same shape, dtype and device, got": lambda: fn.GaussianKL()((X, X), (X, X[0])),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_bad_input_is_refused_with_its_message(message):
    """The message names the loss, the rule with its numbers, and what it got."""
    with pytest.raises(ValueError, match=r".") as caught:
        MESSAGES[message]()
    assert message in str(caught.value)
