"""Derivatives at bounds: the derivative at a bound is the one inside, whatever that of torch's clamp is."""

import math

import pytest
import torch

import funcnet as fn
from funcnet.kernels.activation import bounded, positive_part

INF, NAN = math.inf, math.nan
X = torch.tensor([-INF, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, INF, NAN], dtype=torch.float64)


@pytest.mark.parametrize("differentiates", [False, True])
def test_values_are_those_of_clamp(differentiates):
    """NaN stays NaN."""
    x = X.clone().requires_grad_(differentiates)
    torch.testing.assert_close(positive_part(x).detach(), X.clamp_min(0), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(bounded(x, -1.0, 1.0).detach(), X.clamp(-1, 1), rtol=0, atol=0, equal_nan=True)


def test_the_slope_at_a_bound_is_1():
    """This matches the losses' gradients; the derivative of torch's clamp there is 1 up to torch 2.13, and 0 from 2.14 on."""
    assert torch.func.grad(lambda x: positive_part(x).sum())(X[:-1]).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert torch.func.grad(lambda x: bounded(x, -1.0, 1.0).sum())(X[:-1]).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_margin_losses_have_one_slope_at_their_kink():
    """``vjp`` and autograd through ``apply`` return the same derivative."""
    one, two = torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    two[:, 0] = 1.0
    across = torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64)
    for loss, y, target in [
        (fn.Hinge(), one[:, 0], one[:, 0].long()),
        (fn.HingeEmbedding(), one[:, 0], -one[:, 0].long()),
        (fn.MarginRanking(), (one[:, 0], one[:, 0]), one[:, 0].long()),
        (fn.TripletMargin(swap=False, margin=1.0), (one, two, across), None),
        (fn.CosineEmbedding(), (two, across), -one[:, 0].long()),
    ]:
        value = lambda y, loss=loss, target=target: loss(y, target)
        gradient = loss.value_and_grad(y, target)[1]
        fn.testing.assert_close(torch.func.grad(value)(y), gradient)
        assert any(leaf.abs().sum() > 0 for leaf in fn.tree.leaves(gradient))


def test_a_radial_basis_curves_at_its_center():
    """At distance 0, its bound, the second derivative is -2 γ."""
    layer, center = fn.RBF(2, 1, gamma=0.5), torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    hessian = torch.func.hessian(lambda x: layer({"centers": center}, x)[0, 0])(center)
    torch.testing.assert_close(hessian.reshape(2, 2), -torch.eye(2, dtype=torch.float64))
