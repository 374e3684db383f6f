"""Losses at infinite logits and at probabilities of 0 and 1: limits in eager mode, mapped, compiled and differentiated."""

import math

import pytest
import torch
from torch import Tensor

import funcnet as fn

INF = math.inf


def labelled(y: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Return value and gradient for one row."""
    return fn.CrossEntropy().value_and_grad(y, torch.tensor(label))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("label", "value", "gradient"), [(0, 0, [0, 0, 0]), (1, INF, [1, -1, 0])])
def test_an_infinite_logit_has_the_probability_1(label, value, gradient, dtype):
    """The loss is 0 or infinite, and the gradient p - one-hot; torch has NaN."""
    y = torch.tensor([INF, 1.0, 2.0], dtype=dtype)
    want = torch.tensor(value, dtype=dtype), torch.tensor(gradient, dtype=dtype)
    torch.testing.assert_close(labelled(y, label), want, rtol=0, atol=0)
    mapped = torch.func.vmap(lambda y: labelled(y, label))(y[None])
    torch.testing.assert_close(mapped, (want[0][None], want[1][None]), rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["none", "sum", "batch", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_with_an_infinite_logit_leaves_others_as_they_are(reduction, smoothing):
    """Their gradients agree bit for bit, for labels and for probabilities."""
    loss = fn.CrossEntropy(reduction=reduction, label_smoothing=smoothing)
    y = torch.tensor([[0.3, -1.0, 2.0], [1.0, 2.0, 0.5]])
    other = torch.tensor([[INF, 1.0, 0.0], [1.0, 2.0, 0.5]])
    for target in (torch.tensor([0, 2]), torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])):
        (_, gy), (value, got) = loss.value_and_grad(y, target), loss.value_and_grad(other, target)
        assert torch.equal(got[1], gy[1])
        assert got.isfinite().all()
        assert not value.isnan().any()


@pytest.mark.compiled
def test_compiled_cross_entropy_has_the_limits():
    """The rows have ∞ at the label and elsewhere; the results match eager mode."""
    y, labels = torch.tensor([[INF, 1.0, 2.0], [INF, 1.0, 2.0], [0.5, 0.1, 0.2]]), torch.tensor([0, 1, 2])
    loss = fn.CrossEntropy(reduction="none")
    got = torch.compile(loss.value_and_grad, fullgraph=True)(y, labels)
    torch.testing.assert_close(got, loss.value_and_grad(y, labels))
    assert got[0][:2].tolist() == [0, INF]


def test_rows_that_are_ignored_may_hold_anything():
    """NaN and both infinities are tried; the mean of ignored rows only is 0."""
    y = torch.tensor([[INF, -INF, math.nan], [math.nan, 1.0, 2.0]])
    value, gy = fn.CrossEntropy().value_and_grad(y, torch.tensor([-100, -100]))
    assert (value.item(), gy.any().item()) == (0, False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_slope_of_bce_where_y_is_the_target_is_its_limit(dtype):
    """The slope is 1 at 0 and -1 at 1; autograd finds the same."""
    y = torch.tensor([0.0, 1.0, 0.25], dtype=dtype)
    want = torch.tensor([1.0, -1.0, 0.0], dtype=dtype)
    value, gy = fn.BCE("sum").value_and_grad(y[:2], y[:2])
    assert value == 0
    assert torch.equal(gy, want[:2])
    assert torch.equal(fn.BCE("sum").value_and_grad(y, y)[1], want)
    assert torch.equal(torch.func.grad(lambda p: fn.BCE("sum")(p, y))(y), want)


def test_the_slope_of_bce_near_an_edge_has_the_sign_of_the_error():
    """Here y, and a target other than 0 and 1, are both within 1e-12 of an edge; no part of the limit is added."""
    y, t = torch.tensor([[1e-13, 3e-13, 2e-13], [2e-13, 2e-13, 2e-13]], dtype=torch.float64)
    for gy in (fn.BCE("sum").value_and_grad(y, t)[1], torch.func.grad(lambda p: fn.BCE("sum")(p, t))(y)):
        assert gy.sign().tolist() == [-1, 1, 0]
