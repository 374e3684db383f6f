"""Losses with a binary label for each element. t is the target, σ(y) = 1 / (1 + e⁻ʸ).

    SoftMargin            ℓ = log(1 + e^(-t y))                       t is 1 or -1
                          ∂ℓ/∂y = -t σ(-t y)                          ∂ℓ/∂t = -y σ(-t y)
    MultiLabelSoftMargin  ℓ = -Σ w (t log σ(y) + (1 - t) log σ(-y)) / classes,    one term per row; t is 0 or 1
                          ∂ℓ/∂y = w (σ(y) - t) / classes              ∂ℓ/∂t = -w y / classes
    HingeEmbedding        ℓ = y where t is 1, max(0, m - y) where t is -1         m = margin
                          ∂ℓ/∂y = 1 where t is 1, -[y ≤ m] where t is -1          the target has no gradient

[...] is 1 where the condition holds, else 0. The reduction sets c to 1 for "sum" and "none", 1/n for "mean" over n terms, 1/N for
"batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from typing import TYPE_CHECKING, Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.errors import number, value_error
from funcnet.kernels import activation, elementwise_losses, losses
from funcnet.losses.binary import BCEWithLogits
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor, fitting_target, reductions, weights
from funcnet.losses.terms import TermLoss, over_classes, require_signs
from funcnet.precision import in_single
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


@frozen
class SoftMargin(ElementwiseLoss):
    """Logistic loss of scores y and labels t of 1 and -1: ``torch.nn.SoftMarginLoss``, without its overflow for large scores.

        ℓ     = log(1 + e^(-t y))
        ∂ℓ/∂y = -t σ(-t y)
        ∂ℓ/∂t = -y σ(-t y)

    It equals ``BCEWithLogits`` with the labels (1 + t) / 2. An infinite score of the correct sign costs 0.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) of 1 and -1 → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, not copied.

    Raises:
        ValueError: If the target is boolean or unsigned; in eager mode on the CPU, also if it contains integers other than 1 and
            -1, zeros, or NaN.

    References:
        ``torch.nn.SoftMarginLoss``.

    >>> SoftMargin("none")(torch.tensor([0.0, 200.0, 200.0]), torch.tensor([1, 1, -1]))
    tensor([  0.6931,   0.0000, 200.0000])
    """

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        found = super().forward(y, target)  # raises if the target does not fit y
        require_signs(self, target)
        return found

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        y, t = kept
        return activation.softplus(-t * y, 1.0, 40.0)  # the identity beyond 40, in float64 too

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        y, t = kept
        return activation.log_sigmoid_backward(t * -c, t * y)

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return elementwise_losses.soft_margin_target_slope(*kept) * c


_OF_EACH = BCEWithLogits("none")
"""The terms of the classes and their derivatives."""


@frozen
class MultiLabelSoftMargin(TermLoss):
    """Binary cross-entropy of logits, averaged over the classes of each row: ``torch.nn.MultiLabelSoftMarginLoss``.

        ℓ     = -Σ w (t log σ(y) + (1 - t) log σ(-y)) / classes         one term per row
        ∂ℓ/∂y = w (σ(y) - t) / classes
        ∂ℓ/∂t = -w y / classes

    ``BCEWithLogits`` has one term per element instead, and its ``pos_weight`` applies to t = 1 only. Half precision is computed
    in float32.

    Args:
        weight: w, a factor for the terms of each class.
        reduction: ``"mean"`` over rows, ``"sum"``, ``"none"`` for one value per row, or ``"batch"`` for the sum divided by N.

    Shape:
        y (N, ..., classes) or (classes,), target of the same shape, from 0 to 1 → (), or (N, ...) with ``reduction="none"``

    Cache:
        y and the target, in float32 or wider, and w / classes.

    Raises:
        ValueError: If y has no classes, or if the number of weights differs from the number of classes.

    References:
        ``torch.nn.MultiLabelSoftMarginLoss``.

    >>> MultiLabelSoftMargin()(torch.tensor([[0.0, 0.0], [9.0, -9.0]]), torch.tensor([[1, 1], [1, 0]]))
    tensor(0.3466)
    """

    weight: tuple[float, ...] | None = field(default=None, validator=weights)
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Any:
        t = fitting_target(self, y, target)
        kept = _OF_EACH.cache(in_single(y), in_single(t))
        return kept, self._shares(kept[0])

    def loss(self, kept: Any) -> Tensor:
        inner, w = kept
        of_each = _OF_EACH.loss(inner)
        weighed = losses.product(w.expand_as(of_each), of_each) if 0 in (self.weight or ()) else of_each * w
        return weighed.sum(-1)

    def dloss_dy(self, kept: Any, g: Factor) -> Tensor:
        inner, w = kept
        return _OF_EACH.dloss_dy(inner, over_classes(g) * w)

    def dloss_dt(self, kept: Any, g: Factor) -> Tensor:
        inner, w = kept
        return _OF_EACH.dloss_dt(inner, over_classes(g) * w)

    def weight_of(self, target: Tensor) -> float | Tensor:
        rows = target.numel() // (target.shape[-1] or 1)
        return rows if self.reduction == "mean" else target.shape[0] if target.dim() > 1 else 1

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor:
        return terms.unsqueeze(-1)

    def _shares(self, y: Tensor) -> Tensor:
        """Return w / classes, for each class."""
        classes = y.shape[-1] if y.dim() else 0
        if not classes:
            raise value_error(self, "the last axis of y must hold one or more classes", y)
        if self.weight and len(self.weight) != classes:
            raise value_error(
                self, f"weight must have one number for each of the {classes} classes", f"{len(self.weight)} numbers"
            )
        return y.new_tensor([w / classes for w in self.weight or [1.0] * classes])


@frozen
class HingeEmbedding(ElementwiseLoss):
    """Loss of a distance y: y for similar pairs, max(0, margin - y) for dissimilar ones: ``torch.nn.HingeEmbeddingLoss``.

        ℓ     = y where t is 1,    max(0, m - y) where t is -1        m = margin
        ∂ℓ/∂y = 1 where t is 1,    -[y ≤ m] where t is -1

    Only the sign of a floating target is used. The target has no gradient.

    Args:
        margin: m, in the unit of y: dissimilar pairs that are farther apart cost nothing.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) of 1 and -1 → (), or (...) with ``reduction="none"``

    Cache:
        y, and the target with 0 in place of -1.

    Raises:
        ValueError: If the target is boolean or unsigned; in eager mode on the CPU, also if it contains integers other than 1 and
            -1, zeros, or NaN. Elsewhere the term of a target 0 or NaN is NaN; in torch it is the sum of both terms.

    References:
        Hadsell, Chopra & LeCun 2006, without the squares; ``torch.nn.HingeEmbeddingLoss``.

    >>> HingeEmbedding(reduction="none")(torch.tensor([0.25, 0.25, 3.0]), torch.tensor([1, -1, -1]))
    tensor([0.2500, 0.7500, 0.0000])
    """

    margin: float = field(default=1.0, validator=number())
    reduction: str = field(default="mean", validator=reductions)

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None: ...

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        found = super().forward(y, target)  # raises if the target does not fit y
        require_signs(self, target)
        return found

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, elementwise_losses.is_positive(t)

    def loss(self, kept: Pair) -> Tensor:
        return elementwise_losses.hinge_at(*kept, self.margin)

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return elementwise_losses.hinge_at_slope(*kept, self.margin) * c

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return torch.zeros_like(kept[1])

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        return None
