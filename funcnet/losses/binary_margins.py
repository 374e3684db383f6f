"""Margin losses of two classes. t is the sign -1 or 1, h(z) = max(0, z), and [z ≥ 0] is 1 where that holds, else 0.

    Hinge           ℓ = h(z)    z = margin - t y             ∂ℓ/∂y = -t [z ≥ 0]      ∂ℓ/∂t = -y [z ≥ 0]
    MarginRanking   ℓ = h(z)    z = margin - t (x₁ - x₂)     ∂ℓ/∂x₁ = -t [z ≥ 0]     ∂ℓ/∂t = -(x₁ - x₂) [z ≥ 0]

and ∂ℓ/∂x₂ = -∂ℓ/∂x₁. All tensors (...) have the same shape. At the kink, z = 0, the derivative for z > 0 is used, as in torch.nn:
with a margin of 0, a score of 0 counts as a mistake and gets a gradient. In gy = g c ∂ℓ/∂y and gt = g c ∂ℓ/∂t, the reduction sets
c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch".
"""

from typing import TYPE_CHECKING, Any

from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels.activation import positive_part
from funcnet.losses.loss import Factor, reductions
from funcnet.losses.terms import TermLoss, require_alike, require_like, require_signs
from funcnet.precision import in_single
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor]  # x, t and z


@frozen
class _Margin(TermLoss):
    """The loss max(0, margin - t x)."""

    margin: float

    def loss(self, kept: Kept) -> Tensor:
        return positive_part(kept[2])

    def dloss_dt(self, kept: Kept, g: Factor) -> Tensor:
        x, _, z = kept
        return -x * (z >= 0) * g

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else super().weight_of(target)

    def _kept(self, x: Tensor, t: Tensor) -> Kept:
        return x, t, self.margin - t * x

    def _slope(self, kept: Kept, g: Factor) -> Tensor:
        _, t, z = kept
        return -t * (z >= 0) * g


@frozen
class Hinge(_Margin):
    """Hinge loss of scores whose sign is the predicted class: ``optax.hinge_loss``.

        ℓ     = max(0, z)                   z = margin - t y
        ∂ℓ/∂y = -t [z ≥ 0]                  ∂ℓ/∂t = -y [z ≥ 0]

    With ``margin=0.0`` it is the perceptron loss max(0, -t y): ``optax.perceptron_loss``.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.
        margin: The smallest t y at which an example costs nothing.

    Shape:
        y (...), target (...) of 1 and -1 → (), or (...) with ``reduction="none"``; a floating target can be any factor and has a
        gradient

    Cache:
        y, t and z, in float32 or wider.

    Raises:
        ValueError: If the target is boolean or unsigned; in eager mode on the CPU, also if it contains integers other than 1 and
            -1, zeros, or NaN.

    References:
        Rosenblatt 1958 for margin 0; Cortes & Vapnik 1995; ``optax.hinge_loss``.

    >>> import torch
    >>> Hinge()(torch.tensor([2.0, 0.5, 0.5]), torch.tensor([1, 1, -1]))
    tensor(0.6667)
    """

    reduction: str = field(default="mean", validator=reductions)
    margin: float = field(default=1.0, validator=number())

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(self, reduction: str = "mean", margin: float = 1.0) -> None: ...

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        t = require_like(self, y, target)
        require_signs(self, target)
        return self._kept(in_single(y), t)

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        return self._slope(kept, g)


@frozen
class MarginRanking(_Margin):
    """Ranking loss of two scores: ``torch.nn.MarginRankingLoss``.

        ℓ      = max(0, z)                  z = margin - t (x₁ - x₂)
        ∂ℓ/∂x₁ = -t [z ≥ 0]                 ∂ℓ/∂x₂ = -∂ℓ/∂x₁
        ∂ℓ/∂t  = -(x₁ - x₂) [z ≥ 0]         gy = g c (∂ℓ/∂x₁, ∂ℓ/∂x₂)

    y is the pair (x₁, x₂), and its gradient is a pair too. The target 1 says that x₁ should be larger, -1 that x₂ should be. With
    the default margin of 0, equal scores cost nothing, but ∂ℓ/∂x₁ is -t, as in torch.nn.

    Args:
        margin: The smallest t (x₁ - x₂) at which a pair costs nothing.
        reduction: ``"mean"`` over all pairs, ``"sum"``, ``"none"`` for one value per pair, or ``"batch"`` for the sum divided by
            the length of axis 0.

    Shape:
        y a pair of (...), target (...) of 1 and -1 → (), or (...) with ``reduction="none"``; unlike in torch.nn, nothing is
        broadcast; a floating target can be any factor and has a gradient

    Cache:
        x₁ - x₂, t and z, in float32 or wider.

    Raises:
        ValueError: If y is not a pair of floating tensors of the same shape, dtype and device, or if the target is one that
            ``Hinge`` rejects.

    References:
        ``torch.nn.MarginRankingLoss``.

    >>> import torch
    >>> MarginRanking(1.0)((torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.5])), torch.tensor([1, 1]))
    tensor(0.2500)
    """

    margin: float = field(default=0.0, validator=number())
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Any, target: Tensor) -> Kept:
        one, other = require_alike(self, y, "(x1, x2)")
        t = require_like(self, y[0], target)
        require_signs(self, target)
        return self._kept(one - other, t)

    def dloss_dy(self, kept: Kept, g: Factor) -> Any:
        slope = self._slope(kept, g)
        return slope, -slope
