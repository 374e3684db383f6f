"""Losses of labels that say yes or no for each element. t is the target, σ(y) = 1 / (1 + e⁻ʸ).

    SoftMargin            ℓ = log(1 + e^(-t y))                       t is 1 or -1
                          ∂ℓ/∂y = -t σ(-t y)                          ∂ℓ/∂t = -y σ(-t y)
    MultiLabelSoftMargin  ℓ = -Σ w (t log σ(y) + (1 - t) log σ(-y)) / classes,    a term for each row; t is 0 or 1
                          ∂ℓ/∂y = w (σ(y) - t) / classes              ∂ℓ/∂t = -w y / classes
    HingeEmbedding        ℓ = y where t is 1, max(0, m - y) where t is -1         m = margin
                          ∂ℓ/∂y = 1 where t is 1, -(y ≤ m) where t is -1          the target has no gradient

By the reduction, with c = 1 for "sum" and "none", 1/n for "mean" of n terms, 1/N for "batch",

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.errors import number, value_error
from funcnet.kernels import activation, elementwise_losses, losses
from funcnet.losses.binary import BCEWithLogits
from funcnet.losses.loss import ElementwiseLoss, Factor, fitting_target, reductions, weights
from funcnet.losses.terms import TermLoss, over_classes, require_signs
from funcnet.precision import in_single
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


@frozen
class SoftMargin(ElementwiseLoss):
    """Logistic loss of scores y and labels t of 1 and -1: ``torch.nn.SoftMarginLoss``, which overflows for large scores.

        ℓ     = log(1 + e^(-t y))
        ∂ℓ/∂y = -t σ(-t y)
        ∂ℓ/∂t = -y σ(-t y)

    It is ``BCEWithLogits`` of the labels (1 + t) / 2. An infinite score on the right side costs 0.

    Args:
        reduction: ``"mean"``, over all elements, ``"sum"``, ``"none"``, or ``"batch"``, the sum divided by the length of axis 0.

    Shape:
        y (...), target of the same shape; integers are taken as numbers.

    Cache:
        y and the target.

    Raises:
        ValueError: As ``MSE`` does, for a boolean or unsigned target, and in eager mode on the CPU for integers other than 1 and
            -1, for 0 and for NaN.

    References:
        ``torch.nn.SoftMarginLoss``'s formula.

    >>> SoftMargin("none")(torch.tensor([0.0, 200.0, 200.0]), torch.tensor([1, 1, -1]))
    tensor([  0.6931,   0.0000, 200.0000])
    """

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        found = super().forward(y, target)  # complains of a target that does not fit y
        require_signs(self, target)
        return found

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        y, t = kept
        return activation.softplus(-t * y, 1.0, 40.0)  # beyond 40 it is the number itself, in float64 too

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        y, t = kept
        return activation.log_sigmoid_backward(t * -c, t * y)

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return elementwise_losses.soft_margin_target_slope(*kept) * c


_OF_EACH = BCEWithLogits("none")
"""The term of each class, and its slopes."""


@frozen
class MultiLabelSoftMargin(TermLoss):
    """Binary cross-entropy of logits, with the mean over classes as the term of a row: ``torch.nn.MultiLabelSoftMarginLoss``.

        ℓ     = -Σ w (t log σ(y) + (1 - t) log σ(-y)) / classes         a term for each row
        ∂ℓ/∂y = w (σ(y) - t) / classes
        ∂ℓ/∂t = -w y / classes

    ``BCEWithLogits`` takes the mean over all elements at once, and its ``pos_weight`` weighs t = 1 only. Half precision is
    computed in float32.

    Args:
        weight: w, a factor for the terms of each class.
        reduction: ``"mean"``, over rows, ``"sum"``, ``"none"``, a value for each row, or ``"batch"``, the sum divided by N.

    Shape:
        y (N, ..., classes) or (classes,), target of the same shape, from 0 to 1; integers and booleans are taken as numbers. The
        terms have the shape of y without its last axis.

    Cache:
        y and the target, in float32 at least, and w / classes.

    Raises:
        ValueError: As ``MSE`` does, for weights that are negative, not finite, or not one for each class, and for a y without
            classes.

    References:
        ``torch.nn.MultiLabelSoftMarginLoss``'s formula.

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
            raise value_error(self, "the last axis of y must be one or more classes", y)
        if self.weight and len(self.weight) != classes:
            raise value_error(
                self, f"weight must have one number for each of the {classes} classes", f"{len(self.weight)} numbers"
            )
        return y.new_tensor([w / classes for w in self.weight or [1.0] * classes])


@frozen
class HingeEmbedding(ElementwiseLoss):
    """Cost of distances y: themselves for similar pairs, for others the rest to the margin: ``torch.nn.HingeEmbeddingLoss``.

        ℓ     = y where t is 1,    max(0, m - y) where t is -1        m = margin
        ∂ℓ/∂y = 1 where t is 1,    -(y ≤ m) where t is -1

    The target has no gradient: floating numbers count by their sign.

    Args:
        margin: m, in the unit of y: pairs that are not similar cost nothing beyond.
        reduction: ``"mean"``, over all elements, ``"sum"``, ``"none"``, or ``"batch"``, the sum divided by the length of axis 0.

    Shape:
        y (...), target of the same shape, each number 1 or -1.

    Cache:
        y, and 1 and 0 for the targets 1 and -1.

    Raises:
        ValueError: As ``MSE`` does, for a ``margin`` that is not a finite number, for a boolean or unsigned target, and in eager
            mode on the CPU for integers other than 1 and -1, for 0 and for NaN. Elsewhere the term of 0 or NaN is NaN, in torch
            the sum of both.

    References:
        Hadsell, Chopra & LeCun 2006, without the squares; the formula of ``torch.nn.HingeEmbeddingLoss``.

    >>> HingeEmbedding(reduction="none")(torch.tensor([0.25, 0.25, 3.0]), torch.tensor([1, -1, -1]))
    tensor([0.2500, 0.7500, 0.0000])
    """

    margin: float = field(default=1.0, validator=number())
    reduction: str = field(default="mean", validator=reductions)

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        found = super().forward(y, target)  # complains of a target that does not fit y
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
