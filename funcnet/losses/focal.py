"""Focal losses: cross-entropies that down-weight well-classified examples.

    Focal             ℓ = a e qᵞ      e = -t log σ(y) - (1 - t) log σ(-y)         a = α t + (1 - α) (1 - t), or 1 without α
                      ∂ℓ/∂y = a qᵞ (σ(y) - t + γ e (1 - 2 t) r)                   q = t σ(-y) + (1 - t) σ(y),  r = σ(y) σ(-y) / q
                      ∂ℓ/∂t = (2 α - 1) e qᵞ + a qᵞ (γ e (1 - 2 σ(y)) / q - y)
    MulticlassFocal   ℓ = -w_t qᵞ log p_t                                         p = softmax(y),  q = 1 - p_t
                      ∂ℓ/∂y = w_t (γ qᵞ⁻¹ p_t log p_t - qᵞ) (o - p)               o one-hot of t

For Focal, y and t (...) have the same shape; for MulticlassFocal, y is (N, classes, ...) and t holds labels (N, ...). A quotient
0 / 0 is replaced with its limit: a prediction with probability 0 or 1 costs nothing if it is right, and has a finite gradient if
it is wrong.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import is_number, number, valid_if, value_error
from funcnet.kernels.limits import log_softmax
from funcnet.kernels.losses import product
from funcnet.kernels.tracing import is_differentiated
from funcnet.losses.binary import BCEWithLogits
from funcnet.losses.label_loss import class_axis
from funcnet.losses.loss import Factor, reductions, weights
from funcnet.losses.terms import TermLoss, is_dense, label_error, require_labels, require_like
from funcnet.precision import in_single
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # y, t, σ(y), σ(-y), q and e
KeptRows = tuple[Tensor, Tensor, Tensor, Tensor | None]  # log p, the labels, log p_t and w_t

_ENTROPY = BCEWithLogits("none")

_share = valid_if(lambda got: is_number(got) and 0 <= got <= 1, "a number from 0 to 1, or None", optional=True)


def _power(q: Tensor, gamma: float) -> Tensor:
    """Return qᵞ, with the derivative 0 at q = 0 if the exact one is infinite."""
    if gamma == 0 or gamma >= 1:
        return q**gamma
    return q.masked_fill(q == 0, 1.0) ** gamma * (q > 0)


def _product(k: Tensor, e: Tensor) -> Tensor:
    """Return k e. If e is infinite, k is 1 with the derivative 0, which ``torch.func`` must not multiply by ∞."""
    if not is_differentiated(k, e):
        return k * e
    far = e.isinf()
    return k * e.masked_fill(far, 0.0) + e.masked_fill(~far, 0.0)


def _over(x: Tensor, q: Tensor) -> Tensor:
    """Return x / q, or x where q is 0."""
    return x / q.masked_fill(q == 0, 1.0)


@frozen
class Focal(TermLoss):
    """Focal loss of binary logits: ``optax.sigmoid_focal_loss`` and ``torchvision.ops.sigmoid_focal_loss``.

        ℓ     = a e qᵞ               e = -t log σ(y) - (1 - t) log σ(-y),  q = t σ(-y) + (1 - t) σ(y)
        ∂ℓ/∂y = a qᵞ (σ(y) - t + γ e (1 - 2 t) r)              r = σ(y) σ(-y) / q
        ∂ℓ/∂t = (2 α - 1) e qᵞ + a qᵞ (γ e (1 - 2 σ(y)) / q - y)

    a = α t + (1 - α) (1 - t), or 1 without α; then the first term of ∂ℓ/∂t is absent. With ``gamma=0`` it is ``BCEWithLogits``.

    Args:
        alpha: α, the weight of the target 1; the target 0 has the weight 1 - α. Default: ``None``, the weight 1 for both;
            torchvision's default is 0.25.
        gamma: γ, how strongly well-classified examples are down-weighted.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) from 0 to 1 → (), or (...) with ``reduction="none"``

    Cache:
        y, t, σ(y), σ(-y), q and e, in float32 or wider.

    Raises:
        ValueError: If ``alpha`` is outside 0 to 1, or ``gamma`` is below 0.

    References:
        Lin et al. 2017, eq. 5; ``optax.sigmoid_focal_loss`` for targets between 0 and 1.

    >>> Focal()(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.1733)
    """

    alpha: float | None = field(default=None, validator=_share)
    gamma: float = field(default=2.0, validator=number(0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        t = require_like(self, y, target)
        y = in_single(y)
        p, s = torch.sigmoid(y), torch.sigmoid(-y)
        return y, t, p, s, t * s + (1 - t) * p, _ENTROPY.loss((y, t, 1.0))

    def loss(self, kept: Kept) -> Tensor:
        _, t, _, _, q, e = kept
        return self._balanced(t, _product(_power(q, self.gamma), e))

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        _, t, p, s, q, e = kept
        slope = (1 - t) * p - t * s + self.gamma * (1 - 2 * t) * product(_over(p * s, q), e)
        return self._balanced(t, _power(q, self.gamma) * slope) * g

    def dloss_dt(self, kept: Kept, g: Factor) -> Tensor:
        y, t, p, s, q, e = kept
        k = _power(q, self.gamma)
        gt = self._balanced(t, self.gamma * k * _over(e, q) * (s - p) - product(k, y))
        return (gt if self.alpha is None else gt + (2 * self.alpha - 1) * k * e) * g

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else super().weight_of(target)

    def _balanced(self, t: Tensor, x: Tensor) -> Tensor:
        """Return a x."""
        return x if self.alpha is None else (self.alpha * t + (1 - self.alpha) * (1 - t)) * x


@frozen
class MulticlassFocal(TermLoss):
    """Focal loss of class labels; with ``gamma=0`` and without weights it is ``CrossEntropy``.

        ℓ     = -w_t qᵞ log p_t                                p = softmax(y),  q = 1 - p_t
        ∂ℓ/∂y = w_t (γ qᵞ⁻¹ p_t log p_t - qᵞ) (o - p)          o one-hot of t

    Args:
        weight: w, a factor for the terms of each class. The mean divides by the number of terms, not by the sum of weights.
        gamma: γ, how strongly well-classified examples are down-weighted.
        reduction: ``"mean"`` over all labels, ``"sum"``, ``"none"`` for one value per label, or ``"batch"`` for the sum divided
            by N.

    Shape:
        y (N, classes, ...) or (classes,), labels (N, ...) or () → (), or the shape of the labels with ``reduction="none"``

    Cache:
        log softmax(y), the labels with an axis of classes, log p_t, and the labels' weights or ``None``, in float32 or wider.

    Raises:
        ValueError: If ``gamma`` is below 0, if the number of weights differs from the number of classes, or if a label is out of
            range (on the CPU).

    References:
        Lin et al. 2017, eq. 5, with a softmax.

    >>> MulticlassFocal()(torch.tensor([[2.0, 2.0]]), torch.tensor([0]))
    tensor(0.1733)
    """

    weight: tuple[float, ...] | None = field(default=None, validator=weights)
    gamma: float = field(default=2.0, validator=number(0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> KeptRows:
        axis = self._require_classes(y)
        labels = require_labels(self, y, target, y.shape[:axis] + y.shape[axis + 1 :]).unsqueeze(axis)
        logp = log_softmax(in_single(y), axis)
        try:
            own = logp.gather(axis, labels)
        except (IndexError, RuntimeError) as error:
            raise label_error(self, y.shape[axis], error) from None
        w = None if self.weight is None else self._class_weights(logp, axis).gather(axis, labels)
        return logp, labels, own, w

    def loss(self, kept: KeptRows) -> Tensor:
        _, _, own, w = kept
        terms = -own * _power(-torch.expm1(own), self.gamma)
        return (terms if w is None else terms * w).squeeze(class_axis(own))

    def dloss_dy(self, kept: KeptRows, g: Factor) -> Tensor:
        logp, labels, own, w = kept
        axis, q = class_axis(logp), -torch.expm1(own)
        d = _power(q, self.gamma) * (self.gamma * product(own.exp(), _over(own, q)) - 1)
        d = d * (g.unsqueeze(axis) if isinstance(g, Tensor) and g.dim() else g)
        d = d if w is None else d * w
        return (-logp.exp() * d).scatter_add(axis, labels, d)

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else super().weight_of(target)

    def _require_classes(self, y: Any) -> int:
        if not is_dense(y) or not y.dim() or y.shape[class_axis(y)] == 0:
            raise value_error(self, "y must be a dense floating tensor with the axes (N, classes, ...) or (classes,)", y)
        return class_axis(y)

    def _class_weights(self, logp: Tensor, axis: int) -> Tensor:
        w = self.weight or ()
        if len(w) != logp.shape[axis]:
            raise value_error(self, f"y must have one class for each weight, {len(w)}", f"y of shape {tuple(logp.shape)}")
        own = torch.tensor(w, dtype=logp.dtype, device=logp.device)
        return own.reshape(-1, *[1] * (logp.dim() - axis - 1)).expand_as(logp)
