"""Cross-entropy with a different coefficient for the first term of its series in 1 - p.

    PolyCrossEntropy   ℓ  = Σ t (-log p + ε (1 - p)), over the classes          t one-hot for labels
                       gy = g c (p Σ r - r),  r = t (1 + ε p)                   gt = g c (-log p + ε (1 - p))

t is the target and p = softmax(y). y is (N, classes, ...) or (classes,), and t holds probabilities in the shape of y, or labels
(N, ...) or (). The reduction sets c to 1 for "sum" and "none", 1/n for "mean" over n rows, 1/N for "batch".
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, value_error
from funcnet.kernels import losses as kernels
from funcnet.kernels.limits import log_softmax
from funcnet.losses.label_loss import class_axis, samples
from funcnet.losses.loss import Factor, reductions, require_floating
from funcnet.losses.terms import TermLoss, label_error, require_labels
from funcnet.precision import in_single
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor | None]


@frozen
class PolyCrossEntropy(TermLoss):
    """Cross-entropy of logits plus ε times the probability of all wrong classes: the Poly-1 loss.

        ℓ  = Σ t (-log p + ε (1 - p))                over the classes, p = softmax(y)
        gy = g c (p Σ r - r),  r = t (1 + ε p)       for labels: g c (1 + ε pₜ) (p - t)
        gt = g c (-log p + ε (1 - p))                for probabilities

    -log p is the series Σ (1 - p)ʲ / j; the loss changes the coefficient of its first term from 1 to 1 + ε. A positive ε
    increases the weight of nearly correct rows; a negative ε decreases it, which helps with unbalanced classes. Use ``weighted``
    to mask rows.

    Args:
        epsilon: ε, at least -1.
        reduction: ``"mean"`` over rows, ``"sum"``, ``"none"`` for one value per row, or ``"batch"`` for the sum divided by N.

    Shape:
        y (N, classes, ...) or (classes,), labels (N, ...) or () → (), or the shape of the labels with ``reduction="none"``;
        instead of labels, probabilities in the shape and dtype of y

    Cache:
        log p, the target, and for labels log p at the label, in float32 or wider.

    Raises:
        ValueError: If ``epsilon`` is not a finite number of at least -1, if y has no axis of classes, or if a label is out of
            range (on the CPU).

    References:
        Leng et al. 2022, "PolyLoss: a polynomial expansion perspective of classification loss functions";
        ``optax.poly_loss_cross_entropy``.

    >>> PolyCrossEntropy(epsilon=1.0)(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor(1.1931)
    """

    epsilon: float = field(default=2.0, validator=number(-1))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        require_floating(self, y, target)
        if y.dim() == 0:
            raise value_error(self, "y must have an axis of classes", y)
        axis = class_axis(y)
        logp = log_softmax(in_single(y), axis)
        if not target.is_floating_point():
            labels = require_labels(self, y, target, y.shape[:axis] + y.shape[axis + 1 :])
            return logp, labels, self._at(logp, labels)
        if target.shape != y.shape or target.dtype is not y.dtype:
            rule = f"a floating target must hold probabilities in the shape of y, {tuple(y.shape)}, and its dtype, {y.dtype}"
            raise value_error(self, f"{rule}; labels must be integers", target)
        return logp, in_single(target), None

    def loss(self, kept: Kept) -> Tensor:
        logp, t, found = kept
        if found is not None:
            return self._cost(found)
        return kernels.product(t, self._cost(logp)).sum(class_axis(logp))

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        logp, t, found = kept
        axis = class_axis(logp)
        if found is None:
            gp = -t * (1 + self.epsilon * logp.exp()) * (g.unsqueeze(axis) if isinstance(g, Tensor) and g.dim() else g)
        else:
            gp = kernels.nll_backward((1 + self.epsilon * found.exp()) * g, logp, t, None, 0, -1, logp.new_ones(()))
        return kernels.log_softmax_backward(gp, logp, axis, logp.dtype)

    def dloss_dt(self, kept: Kept, g: Factor) -> Tensor:
        logp, axis = kept[0], class_axis(kept[0])
        return self._cost(logp) * (g.unsqueeze(axis) if isinstance(g, Tensor) and g.dim() else g)

    def weight_of(self, target: Tensor) -> float | Tensor:
        if not target.is_floating_point():
            return target.numel() if self.reduction == "mean" else target.shape[0] if target.dim() else 1
        return target.numel() // (target.shape[class_axis(target)] or 1) if self.reduction == "mean" else samples(target)

    def _cost(self, logp: Tensor) -> Tensor:
        """Return -log p + ε (1 - p)."""
        return -logp - self.epsilon * torch.expm1(logp)

    def _at(self, logp: Tensor, labels: Any) -> Tensor:
        """Return log p at the labels."""
        axis = class_axis(logp)
        try:
            return logp.gather(axis, labels.unsqueeze(axis)).squeeze(axis)
        except (IndexError, RuntimeError) as error:
            raise label_error(self, logp.shape[axis], error) from None
