"""Cross-entropy of classes, from logits and from log-probabilities.

    CrossEntropy   ℓ  = -Σ q log p, over the classes                 p = softmax(y)
                   gy = g c (p Σ q - q)                              gt = -g c (1 - ε) w log p
                   q  = w ((1 - ε) t + ε / classes)                  ε = label_smoothing, t one-hot for labels
    NLL            ℓ  = -w y at the label, y = log p                 gy = -g c w at the label, else 0

t is the target, w the weights of the classes, g the gradient of the value. y is (N, classes, ...) or (classes,), and t holds
probabilities in the shape of y, or labels (N, ...) or (). The reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for
"batch"; "mean" of labels divides by the sum of their w. Here 0 times infinity is 0: an impossible class that does not occur costs
nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, value_error
from funcnet.kernels import losses as kernels
from funcnet.kernels.limits import has_nan, log_softmax
from funcnet.kernels.tracing import may_search
from funcnet.losses.label_loss import LabelLoss, by_class, class_axis, over_classes, rounded_as, samples
from funcnet.losses.loss import require_floating
from funcnet.precision import HALF
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None]


@frozen
class CrossEntropy(LabelLoss):
    """Softmax and cross-entropy of logits: ``torch.nn.CrossEntropyLoss``.

        ℓ  = -Σ q log p              p = softmax(y), q = w ((1 - ε) t + ε / classes), t one-hot for labels
        gy = g c (p Σ q - q)         for labels without options: g c (p - t)
        gt = -g c (1 - ε) w log p    for probabilities

    The classes are in axis 1 of y, or in axis 0 of a vector. Logits of a language model, (N, length, classes), become rows with
    ``Flatten(0, 1)``, or (N, classes, length) with ``Transpose(1, 2)``.

    Three results differ from torch.nn's. If every row is ignored, the mean is 0; torch returns NaN (an empty batch gives NaN here
    too). A class of probability or weight 0 can have the logit -inf. A logit of inf has the probability 1; torch returns NaN.
    Logits in half precision are computed in float32, and the value and the gradient are rounded once.

    Args:
        weight: w, a factor for the terms of each class.
        ignore_index: Rows with this label are ignored. Their gradient is 0, even if their logits are infinite or NaN.
        reduction: ``"mean"`` over rows, weighted by ``weight``; ``"sum"``; ``"none"`` for one value per row; or ``"batch"`` for
            the sum divided by N.
        label_smoothing: ε, the share of each target that is spread evenly over all classes.

    Shape:
        y (N, classes, ...) or (classes,), labels (N, ...) or () → (), or the shape of the labels with ``reduction="none"``;
        instead of labels, probabilities in the shape and dtype of y

    Cache:
        log softmax(y); the labels, ``weight`` as a tensor, the distribution q and the mask of ignored rows, each if needed; c;
        and, in half precision, an empty tensor with the dtype of y.

    Raises:
        ValueError: If a label is neither a class nor ``ignore_index`` (on the CPU; elsewhere torch's assertion fails), if the
            number of weights differs from the number of classes, if probabilities have another shape or dtype than y, or if
            ``ignore_index`` is non-negative with probabilities.

    References:
        Bridle 1990; for ``label_smoothing`` Szegedy et al. 2016, section 7; ``torch.nn.CrossEntropyLoss``.

    >>> CrossEntropy()(torch.tensor([[2.0, 2.0], [-torch.inf, 1.0]]), torch.tensor([0, 1]))
    tensor(0.3466)
    """

    label_smoothing: float = field(default=0.0, validator=number(0, at_most=1))

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Kept]:
        labels, kind = self._labels(y, target), y.new_empty(0) if y.dtype in HALF else None
        z = y if kind is None else y.float()
        if may_search(z):
            found = self._of_logp(torch.log_softmax(z, class_axis(y)), target, labels, kind)
            if not has_nan(found[0]):
                return found
        return self._of_logp(log_softmax(z, class_axis(y)), target, labels, kind)

    def unchecked(self, y: Tensor, target: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Return a fast path for labels. It falls back to ``value_and_grad`` for ignored rows and for logits that give NaN."""
        if self.weight or self.label_smoothing or self.reduction not in ("mean", "batch") or y.dim() > 2:
            return None
        axis, n, c, ignore = class_axis(y), target.numel(), self.scale_of(y, None), self.ignore_index
        if target.dtype is not torch.int64 or not kernels.is_countable(n):
            return None

        def value_and_grad(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logp = torch.log_softmax(y, axis)
            total, count = kernels.eager_nll(logp, labels, None, 2, ignore)
            if count.item() != n or has_nan(logp):
                return self.value_and_grad(y, labels)
            gp = kernels.eager_nll_backward(c, logp, labels, None, 2, ignore, c)
            return total * c, kernels.eager_log_softmax_backward(gp, logp, axis, logp.dtype)

        return value_and_grad

    def _of_logp(self, logp: Tensor, target: Tensor, labels: Tensor | None, kind: Tensor | None) -> tuple[Tensor, Kept]:
        w = self.weight_tensor(logp)
        if labels is None:
            return self._expected((logp, None, w, self._mixed(target.to(logp.dtype), w), self.scale_of(logp, None), None, kind))
        value, total = self.at_labels(logp, labels, w)
        whole = w is None and kernels.is_known(total, labels.numel())
        c = self.scale_of(logp, None if whole else total)
        ignored = None if whole else over_classes(labels == self.ignore_index, logp)
        if self.label_smoothing or (self.weight and 0 in self.weight):
            return self._expected((logp, labels, w, self._spread_smoothing(logp, labels, w, total), c, ignored, kind))
        return self.scaled(value, c, kind), (logp, labels, w, None, c, ignored, kind)

    def backward(self, cache: Kept, g: Tensor | float | None = None) -> Tensor:
        logp, labels, w, q, c, ignored, kind = cache
        gc = c if g is None else (g.to(logp.dtype) if isinstance(g, Tensor) else g) * c
        gp = self.at_labels_grad(logp, labels, w, c, gc) if q is None else -q * over_classes(gc, logp)
        gy = kernels.log_softmax_backward(gp, logp, class_axis(logp), logp.dtype)
        return rounded_as(gy if ignored is None else gy.masked_fill_(ignored, 0), kind)

    def target_grad(self, cache: Kept, g: Tensor) -> Tensor:
        logp, _, w, _, c, _, kind = cache
        gt = -logp * over_classes(g.to(logp.dtype) * c * (1 - self.label_smoothing), logp)
        return rounded_as(gt if w is None else gt * by_class(w, gt), kind)

    def weight_of(self, target: Tensor) -> float | Tensor:
        if not target.is_floating_point():
            return super().weight_of(target)
        return target.numel() // (target.shape[class_axis(target)] or 1) if self.reduction == "mean" else samples(target)

    def scale_of(self, logp: Tensor, total: Tensor | None) -> Tensor:
        """Return c. It is 0 if the weights of the labels sum to 0, even if smoothing adds terms of other classes."""
        c = super().scale_of(logp, total)
        leaves_out = self.reduction == "mean" and total is not None and self.label_smoothing and self.weight
        return c * (total > 0) if leaves_out else c  # type: ignore[operator]  # there is a total

    def _expected(self, cache: Any) -> tuple[Tensor, Kept]:
        """Return -Σ q log p, reduced, and the cache."""
        logp, _, _, q, c, _, kind = cache
        terms = -kernels.product(q, logp).sum(class_axis(logp))
        return self.scaled(terms if self.reduction == "none" else terms.sum(), c, kind), cache

    def _mixed(self, target: Tensor, w: Tensor | None) -> Tensor:
        """Return q for probabilities."""
        e = self.label_smoothing
        q = target * (1 - e) + e / target.shape[class_axis(target)] if e else target
        return q if w is None else q * by_class(w, q)

    def _spread_smoothing(self, logp: Tensor, labels: Tensor, w: Tensor | None, total: Tensor) -> Tensor:
        """Return q for labels, with rows of zeros for ignored ones."""
        e = self.label_smoothing
        q = kernels.nll_backward(logp.new_full((), e - 1).expand(labels.shape), logp, labels, w, 0, self.ignore_index, total)
        rest = logp.new_full((logp.shape[class_axis(logp)],), e / logp.shape[class_axis(logp)])
        ignored = over_classes(labels == self.ignore_index, logp)
        return q + torch.where(ignored, 0.0, by_class(rest if w is None else rest * w, logp))

    def _labels(self, y: Tensor, target: Tensor) -> Tensor | None:
        """Return the labels, or ``None`` for probabilities, after checking that they and the weights fit y."""
        require_floating(self, y, target)
        if not target.is_floating_point():
            return self.labels_of(y, target)
        self.require_classes(y)
        self._probabilities(y, target)
        return None

    def _probabilities(self, y: Tensor, target: Tensor) -> None:
        if target.shape != y.shape or target.dtype != y.dtype:
            rule = f"a floating target must hold probabilities in the shape of y, {tuple(y.shape)}, and its dtype, {y.dtype}"
            raise value_error(self, f"{rule}; labels must be integers", target)
        if self.ignore_index >= 0:
            raise value_error(self, "ignore_index must be negative if the target holds probabilities", str(self.ignore_index))


@frozen
class NLL(LabelLoss):
    """Negative log-likelihood of labels, from log-probabilities: ``torch.nn.NLLLoss``.

        ℓ  = -w y          at the label
        gy = -g c w        at the label, else 0

    ``CrossEntropy`` is ``NLL`` after ``LogSoftmax``. In both, the mean is 0 if every row is ignored (torch returns NaN), and a
    class of weight 0 costs nothing, even if its log-probability is -inf.

    Args:
        weight: w, a factor for the terms of each class.
        ignore_index: Rows with this label are ignored.
        reduction: ``"mean"`` over rows, weighted by ``weight``; ``"sum"``; ``"none"`` for one value per row; or ``"batch"`` for
            the sum divided by N.

    Shape:
        y (N, classes, ...) or (classes,), labels (N, ...) or () → (), or the shape of the labels with ``reduction="none"``

    Cache:
        y, in float32 or wider; the labels; ``weight`` as a tensor; c; and, in half precision, an empty tensor with the dtype of
        y.

    Raises:
        ValueError: If a label is neither a class nor ``ignore_index`` (on the CPU; elsewhere torch's assertion fails), or if the
            number of weights differs from the number of classes.

    References:
        ``torch.nn.NLLLoss``.

    >>> NLL()(torch.tensor([[-0.5, -2.0], [-1.0, -0.25]]), torch.tensor([0, 1]))
    tensor(0.3750)
    """

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Any]:
        labels, kind = self.labels_of(y, target), y.new_empty(0) if y.dtype in HALF else None
        y = y if kind is None else y.float()
        w = self.weight_tensor(y)
        labels = self._ignore_zero_weights(labels)
        value, total = self.at_labels(y, labels, w)
        c = self.scale_of(y, total)
        return self.scaled(value, c, kind), (y, labels, w, c, kind)

    def backward(self, cache: Any, g: Tensor | float | None = None) -> Tensor:
        y, labels, w, c, kind = cache
        gc = c if g is None else (g.to(y.dtype) if isinstance(g, Tensor) else g) * c
        return rounded_as(self.at_labels_grad(y, labels, w, c, gc), kind)

    def _ignore_zero_weights(self, labels: Tensor) -> Tensor:
        """Ignore labels of classes with weight 0: their term is 0, but could be computed as 0 · ∞ = NaN."""
        without_weight = [label for label, w in enumerate(self.weight or ()) if w == 0]
        if not without_weight:
            return labels
        found = (labels.unsqueeze(-1) == labels.new_tensor(without_weight)).any(-1)
        return labels.masked_fill(found, self.ignore_index)
