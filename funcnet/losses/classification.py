"""Cross-entropy of classes. t is the target, g the value's gradient.

    CrossEntropy   ℓ = -Σ q log p, over the classes                  p = softmax(y)
                   gy = g c (p Σ q - q)                              gt = -g c (1 - ε) w log p
                   q = w ((1 - ε) t + ε / classes)                   ε = label_smoothing, t one-hot for labels

y is (N, classes, ...) or (classes,), and t probabilities of its shape, or labels (N, ...) or (). By the reduction, c = 1 for
"sum" and "none", 1/n for "mean", 1/N for "batch"; of labels, "mean" divides by the sum of their w. A product with 0 is 0 here,
whatever the other factor: a class that is impossible and does not occur costs nothing.
"""

import re
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, value_error, whole_number
from funcnet.kernels import losses as kernels
from funcnet.kernels.limits import has_nan, log_softmax
from funcnet.kernels.tracing import may_search
from funcnet.losses.loss import Loss, reductions, require_floating, weights
from funcnet.precision import HALF
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None]


@frozen
class CrossEntropy(Loss):
    """Softmax and cross-entropy of logits: ``torch.nn.CrossEntropyLoss``.

    The classes are in axis 1 of y, or in axis 0 of a vector. A language model's logits (N, length, classes) become rows with
    ``Flatten(0, 1)``, or (N, classes, length) with ``Transpose(1, 2)``.

    Three values differ from torch.nn's. If every row is ignored, the mean is 0 where torch has NaN (an empty batch gives NaN here
    too). A class of probability or weight 0 may have the logit -inf. A logit of inf has the probability 1 where torch has NaN.
    Logits in half precision are computed in float32, and the value and the gradient are rounded once.

    Args:
        weight: A factor for the terms of each class.
        ignore_index: Rows with this label count for nothing. Their gradient is 0, even if their logits are infinite or NaN.
        reduction: ``"mean"``, over rows or by the sum of their weights, ``"sum"``, ``"none"``, or ``"batch"``, the sum over N.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Shape:
        y (N, classes, ...) or (classes,); target labels, integers (N, ...) or (), or probabilities in y's shape and dtype.

    Cache:
        log softmax(y), the labels or else ``None``, ``weight`` as a tensor, the distribution q where it had to be computed, the
        factor of the gradient, which rows are ignored, ``None`` where it is seen that none is, and in half precision an empty
        tensor with the dtype of y.

    Raises:
        ValueError: For an unknown ``reduction``, weights that are negative, not finite or too many or few, a ``label_smoothing``
            outside 0 to 1, a ``y`` that is not floating, a ``target`` of another shape or floating dtype, probabilities with an
            ``ignore_index`` that is not negative, and on the CPU a label that is no class. On other devices torch's own assertion
            fails.

    Source:
        Bridle 1990; for ``label_smoothing`` Szegedy et al. 2016, section 7; the formula of ``torch.nn.CrossEntropyLoss``.

    >>> CrossEntropy()(torch.tensor([[2.0, 2.0], [-torch.inf, 1.0]]), torch.tensor([0, 1]))
    tensor(0.3466)
    """

    weight: tuple[float, ...] | None = field(default=None, validator=weights)
    ignore_index: int = field(default=-100, validator=whole_number)
    reduction: str = field(default="mean", validator=reductions)
    label_smoothing: float = field(default=0.0, validator=number(0, at_most=1))

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Kept]:
        labels, kind = self._labels(y, target), y.new_empty(0) if y.dtype in HALF else None
        z = y if kind is None else y.float()
        if may_search(z):
            found = self._of_logp(torch.log_softmax(z, _axis(y)), target, labels, kind)
            if not has_nan(found[0]):
                return found
        return self._of_logp(log_softmax(z, _axis(y)), target, labels, kind)

    def _of_logp(self, logp: Tensor, target: Tensor, labels: Tensor | None, kind: Tensor | None) -> tuple[Tensor, Kept]:
        w = None if self.weight is None else torch.tensor(self.weight, dtype=logp.dtype, device=logp.device)
        if labels is None:
            return self._expected((logp, None, w, self._mixed(target.to(logp.dtype), w), self._factor(logp, None), None, kind))
        value, total = self._at(logp, labels, w)
        whole = w is None and kernels.is_known(total, labels.numel())
        c = self._factor(logp, None if whole else total)
        ignored = None if whole else _over_classes(labels == self.ignore_index, logp)
        if self.label_smoothing or (self.weight and 0 in self.weight):
            return self._expected((logp, labels, w, self._spread(logp, labels, w, total), c, ignored, kind))
        return self._scaled(value, c, kind), (logp, labels, w, None, c, ignored, kind)

    def backward(self, cache: Kept, g: Tensor | float | None = None) -> Tensor:
        logp, labels, w, q, c, ignored, kind = cache
        gc = c if g is None else (g.to(logp.dtype) if isinstance(g, Tensor) else g) * c
        gp = self._at_grad(logp, labels, w, c, gc) if q is None else -q * _over_classes(gc, logp)
        gy = kernels.log_softmax_backward(gp, logp, _axis(logp), logp.dtype)
        return _as(gy if ignored is None else gy.masked_fill_(ignored, 0), kind)

    def target_grad(self, cache: Kept, g: Tensor) -> Tensor:
        logp, _, w, _, c, _, kind = cache
        gt = -logp * _over_classes(g.to(logp.dtype) * c * (1 - self.label_smoothing), logp)
        return _as(gt if w is None else gt * _by_class(w, gt), kind)

    def weight_of(self, target: Tensor) -> float | Tensor:
        if target.is_floating_point():
            return target.numel() // (target.shape[_axis(target)] or 1) if self.reduction == "mean" else _samples(target)
        if self.reduction != "mean":
            return len(target) if target.dim() else 1
        counts = target != self.ignore_index
        return counts.sum() if self.weight is None else self._class_weights(target).sum()

    def term_weights(self, target: Tensor) -> Tensor | None:
        return None if target.is_floating_point() else self._class_weights(target)

    def _class_weights(self, labels: Tensor) -> Tensor:
        """Return the weight of each label, 0 for those ignored."""
        counts = labels != self.ignore_index
        if self.weight is None:
            return counts.double()
        w = torch.tensor(self.weight, dtype=torch.float64, device=labels.device)
        return torch.where(counts, w[labels.long() * counts], 0.0)

    def _at(self, logp: Tensor, labels: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return -w log p at the labels, by row or their sum, and the sum of w."""
        try:
            return kernels.nll(logp, labels, w, 0 if self.reduction == "none" else 2, self.ignore_index)
        except (IndexError, RuntimeError) as error:
            raise self._explained(logp, error) from None

    def _at_grad(self, logp: Tensor, labels: Any, w: Tensor | None, c: Tensor, gc: Tensor) -> Tensor:
        """Return the gradient of log p: -gc w at the labels, else 0."""
        if self.reduction == "none":
            return kernels.nll_backward(gc.expand(labels.shape), logp, labels, w, 0, self.ignore_index, c)
        return kernels.nll_backward(gc, logp, labels, w, 2, self.ignore_index, c)

    def _expected(self, cache: Any) -> tuple[Tensor, Kept]:
        """Return -Σ q log p, reduced."""
        logp, _, _, q, c, _, kind = cache
        terms = -kernels.product(q, logp).sum(_axis(logp))
        return self._scaled(terms if self.reduction == "none" else terms.sum(), c, kind), cache

    def _mixed(self, target: Tensor, w: Tensor | None) -> Tensor:
        """Return q for probabilities."""
        e = self.label_smoothing
        q = target * (1 - e) + e / target.shape[_axis(target)] if e else target
        return q if w is None else q * _by_class(w, q)

    def _spread(self, logp: Tensor, labels: Tensor, w: Tensor | None, total: Tensor) -> Tensor:
        """Return q for labels; rows of zeros for those ignored."""
        e = self.label_smoothing
        q = kernels.nll_backward(logp.new_full((), e - 1).expand(labels.shape), logp, labels, w, 0, self.ignore_index, total)
        rest = logp.new_full((logp.shape[_axis(logp)],), e / logp.shape[_axis(logp)])
        ignored = _over_classes(labels == self.ignore_index, logp)
        return q + torch.where(ignored, 0.0, _by_class(rest if w is None else rest * w, logp))

    def _factor(self, logp: Tensor, total: Tensor | None) -> Tensor:
        """Return c; where nothing counts, so that ``total`` is 0, any finite number will do, but not in an empty batch.

        With smoothing the classes that do not come have terms too, which then are left out.
        """
        if self.reduction == "mean" and total is not None:
            c = total.clamp_min(torch.finfo(logp.dtype).tiny if logp.numel() else 0).reciprocal()
            return c * (total > 0) if self.label_smoothing and self.weight else c
        if self.reduction == "mean":
            n = logp.numel() // (logp.shape[_axis(logp)] or 1)
        else:
            n = _samples(logp) if self.reduction == "batch" else 1
        return logp.new_full((), 1 / n if n else torch.nan)

    def _scaled(self, value: Tensor, c: Tensor, kind: Tensor | None) -> Tensor:
        return _as(value if self.reduction in ("none", "sum") else value * c, kind)

    def _labels(self, y: Tensor, target: Tensor) -> Tensor | None:
        """Return the labels, or ``None`` when the target is probabilities; either must fit y, and the weights too."""
        require_floating(self, y, target)
        if y.dim() == 0:
            raise value_error(self, "y must have an axis of classes", y)
        classes, shape = y.shape[_axis(y)], y.shape[: _axis(y)] + y.shape[_axis(y) + 1 :]
        if self.weight and len(self.weight) != classes:
            raise value_error(
                self, f"weight must have one number for each of the {classes} classes", f"{len(self.weight)} numbers"
            )
        if target.is_floating_point():
            self._probabilities(y, target)
            return None
        if target.shape != shape or target.is_complex():
            axis = f"axis {_axis(y)}, the classes"
            rule = f"labels must be integers of shape {tuple(shape)}, that of y {tuple(y.shape)} without {axis}"
            raise value_error(self, rule, target)
        return target if target.dtype == torch.int64 else target.long()

    def _probabilities(self, y: Tensor, target: Tensor) -> None:
        if target.shape != y.shape or target.dtype != y.dtype:
            rule = f"a floating target is probabilities, of the shape {tuple(y.shape)} and dtype {y.dtype} of y"
            raise value_error(self, f"{rule}; labels must be integers", target)
        if self.ignore_index >= 0:
            raise value_error(self, "ignore_index is for labels, and must be negative with probabilities", str(self.ignore_index))

    def _explained(self, logp: Tensor, error: Exception) -> Exception:
        """Turn the kernel's error into ours when it names a label, or an index, out of bounds."""
        found = re.search(r"(?:Target|index) (-?\d+) is out of bounds", str(error))
        if not found:
            return error
        rule = f"every label must lie in 0 to {logp.shape[_axis(logp)] - 1} or be ignore_index={self.ignore_index}"
        return value_error(self, rule, found[1])


def _as(x: Tensor, kind: Tensor | None) -> Tensor:
    """Round to the dtype of y, where that is half precision."""
    return x if kind is None else x.to(kind.dtype)


def _samples(y: Tensor) -> int:
    """Return the length of the batch axis; 1 without a batch."""
    return y.shape[0] if y.dim() > 1 else 1


def _axis(y: Tensor) -> int:
    """Return the axis of classes."""
    return 1 if y.dim() > 1 else 0


def _over_classes(rows: Tensor, logp: Tensor) -> Tensor:
    """Give one number a row, or one for all, the axis of classes."""
    return rows.unsqueeze(_axis(logp)) if rows.dim() or logp.dim() == 1 else rows


def _by_class(w: Tensor, like: Tensor) -> Tensor:
    """Give one number a class the axes after that of classes."""
    return w.reshape(-1, *[1] * (like.dim() - _axis(like) - 1))
