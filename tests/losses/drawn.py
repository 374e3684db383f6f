"""Outputs and targets drawn for tests of losses."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from twins import assert_twins

from funcnet import random, tree
from funcnet.losses.binary import BCE, BCEWithLogits
from funcnet.losses.divergences import KLDiv
from funcnet.losses.likelihoods import PoissonNLL
from funcnet.losses.regression import L1, L2, MSE
from funcnet.losses.robust import Huber, SmoothL1
from funcnet.losses.soft_margin import SoftMargin

F64 = torch.float64


REDUCTIONS = ("mean", "sum", "none", "batch")


INF, NAN = math.inf, math.nan


class HalfMSE(nn.Module):
    """Half of torch's squared error: the reference for ``L2``."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.whole = nn.MSELoss(reduction=reduction)

    def forward(self, y: Tensor, target: Tensor) -> Tensor:
        return 0.5 * self.whole(y, target)


def reduced(terms):
    """Return a class of modules that reduce the given terms, a function of y and target."""

    class Reduced(nn.Module):
        def __init__(self, reduction: str) -> None:
            super().__init__()
            self.end = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction]

        def forward(self, y: Tensor, target: Tensor) -> Tensor:
            return self.end(terms(y, target))

    return Reduced


def normal(seed: int, *shape: int) -> Tensor:
    return random.normal(seed, shape, dtype=F64)


def shares(seed: int, *shape: int) -> Tensor:
    """Draw numbers within 0 to 1, away from both ends."""
    return random.uniform(seed, shape, 0.05, 0.95, dtype=F64)


# name: our loss, torch's, how to draw y, how to draw the target; the last axis has 3 entries
ELEMENTWISE = {
    "MSE": (MSE, nn.MSELoss, normal, normal),
    "L1": (L1, nn.L1Loss, normal, normal),
    "L2": (L2, HalfMSE, normal, normal),
    "BCE": (BCE, nn.BCELoss, shares, shares),
    "BCEWithLogits": (BCEWithLogits, nn.BCEWithLogitsLoss, normal, shares),
    "BCEWithLogits of one weight": (
        lambda reduction: BCEWithLogits(reduction, 2.5),
        lambda reduction: nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=torch.tensor(2.5, dtype=F64)),
        normal,
        shares,
    ),
    "BCEWithLogits of three weights": (
        lambda reduction: BCEWithLogits(reduction, (2.5, 0.0, 0.5)),
        lambda reduction: nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=torch.tensor([2.5, 0.0, 0.5], dtype=F64)),
        normal,
        shares,
    ),
    "Huber": (Huber, nn.HuberLoss, normal, normal),
    "SmoothL1": (
        lambda reduction: SmoothL1(reduction, 0.5),
        lambda reduction: nn.SmoothL1Loss(reduction=reduction, beta=0.5),
        normal,
        normal,
    ),
    "SoftMargin": (SoftMargin, reduced(lambda y, t: (-t * y).exp().log1p()), normal, normal),  # torch's has no gradient of t
    "KLDiv": (KLDiv, reduced(nn.KLDivLoss(reduction="none")), normal, shares),  # its mean warns
    "PoissonNLL": (lambda reduction: PoissonNLL(reduction=reduction), nn.PoissonNLLLoss, normal, shares),
}


def by_torch(module, reduction: str, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return torch's value, its gradient, and autograd's of y and of a floating target; ``batch`` is sum / N."""
    y = y.clone().requires_grad_()
    target = target.clone().requires_grad_(target.is_floating_point())
    value = module("sum" if reduction == "batch" else reduction)(y, target)
    value = value / (y.shape[0] if y.dim() > 1 else 1) if reduction == "batch" else value
    g = normal(9, *value.shape)
    gradients = torch.autograd.grad(value, [leaf for leaf in (y, target) if leaf.requires_grad], g)
    return value.detach(), g, gradients[0], dict(enumerate(gradients)).get(1)


def by_layer(loss, y: Tensor, target: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the value and both gradients of the loss as a layer."""
    layer = loss.as_layer()
    value, cache = layer.apply({}, (y, target))
    gparams, (gy, gtarget) = layer.vjp({}, cache, g)
    assert gparams == {}
    return value, gy, gtarget


def assert_loss_twins(loss, module, y: Any, target: Any, call: Any = None) -> None:
    """Compare the loss as a layer, whose weights are fields: torch's buffers are removed from its ``state_dict``."""
    module._non_persistent_buffers_set.update(module._buffers)
    assert_twins(loss.as_layer(), module, (y, target), call=call or (lambda module, x: module(*x)))


def assert_agrees(loss, module, y: Tensor, target: Tensor) -> None:
    """Require torch's value and gradients from the layer and from ``value_and_grad``."""
    value, g, gy, gtarget = by_torch(module, loss.reduction, y, target)
    torch.testing.assert_close(by_layer(loss, y, target, g), (value, gy, gtarget), rtol=1e-10, atol=1e-12)
    ones = by_layer(loss, y, target, torch.ones_like(g))
    torch.testing.assert_close(loss.value_and_grad(y, target), ones[:2], rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(y, target), value, rtol=1e-10, atol=1e-12)


def assert_as_torch(loss, module, y, target) -> None:
    """Require torch.nn's value and gradients from a loss as a layer; y may be a tuple of arguments, and ``target`` ``None``."""
    more = [] if target is None else [target]
    call = lambda module, x: module(*(x[0] if isinstance(y, tuple) else x[:1]), *x[1:][: len(more)])
    assert_loss_twins(loss, module, y, target, call)


def assert_derived(loss, formula, y, target) -> None:
    """Require the value of ``formula(y, target)``, and autograd's gradients of it."""
    inputs = [y, target] if isinstance(target, Tensor) and target.is_floating_point() else [y]
    leaves = tree.leaves(tree.map(lambda leaf: leaf.clone().requires_grad_(), inputs))
    paired, rest = (tuple(leaves[: len(y)]), leaves[len(y) :]) if isinstance(y, tuple) else (leaves[0], leaves[1:])
    terms = formula(paired, *(rest or [target]))
    value = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone, "batch": lambda t: t.sum() / len(t)}[loss.reduction](
        terms
    )
    g = normal(9, *value.shape)
    got, gy, gtarget = by_layer(loss, y, target, g)
    want = torch.autograd.grad(value, leaves, g, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(got, value.detach(), rtol=1e-10, atol=1e-10)
    grads = [*(gy if isinstance(gy, tuple) else (gy,)), *([] if gtarget is None else [gtarget])]
    torch.testing.assert_close(grads, list(want[: len(grads)]), rtol=1e-10, atol=1e-10)
