"""Accuracy: the share of correct predictions, as a function of one batch and as a metric."""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import is_number, is_whole, number, size, size_or_none, value_error, whole_number
from funcnet.metrics.base import Metric, Total, count
from funcnet.metrics.reading import classes_of, labels_of, require_classes, scores
from funcnet.value import frozen


def accuracy(y: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the share of correct predictions in a batch.

        value = correct / counted

    The prediction is the class with the largest output. A single column contains logits: values above 0 predict class 1. If it
    contains probabilities, subtract 0.5 first.

    Args:
        y: Outputs (N, classes, ...), or (N, 1, ...) for two classes.
        target: Labels (N, ...), or one-hot rows or probabilities of the shape of y, of which the largest one counts. For a single
            column, numbers from 0 to 1 of either shape.
        ignore_index: Label of rows that are left out.

    Returns:
        A 0-d tensor in the default dtype; NaN if nothing counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, if a label is out of range, or if the target of a single
            column is outside 0 to 1.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, -100]))
    tensor(1.)
    """
    if not is_whole(ignore_index) or not is_number(ignore_index):
        raise value_error("accuracy", "ignore_index must be a whole number below 2**63", repr(ignore_index))
    if isinstance(y, Tensor) and isinstance(target, Tensor) and (y.dim() < 2 or not y.is_floating_point()):
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}" if y.is_floating_point() else y
        raise value_error("accuracy", "y must be (N, classes, ...), and target (N, ...) or (N, classes, ...)", got)
    predicted, true, counted, _ = classes_of("accuracy", y, target, ignore_index)
    return (((predicted == true) & counted).sum() / counted.sum()).to(torch.get_default_dtype())


def _labels_counted(target: Tensor) -> Tensor | int:
    """Return the number of labels other than the default ``ignore_index``; for probabilities, the number of rows."""
    return len(target) if target.is_floating_point() else (target.long() != -100).sum()


accuracy.weight_of = _labels_counted  # type: ignore[attr-defined]


@frozen
class Accuracy(Metric):
    """Share of rows whose label is among the ``top_k`` largest outputs.

        value = correct / counted

    Args:
        top_k: Number of largest outputs that count as predictions; among equal outputs, those of the first classes.
        name: Column in the history; by default ``"accuracy"``, or ``"top_2_accuracy"`` for ``top_k=2``.
        num_classes: Number of classes, required only if y contains predicted classes.
        threshold: Value above which a single column predicts class 1: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), NaN if nothing counts.
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, if a label is out of range, or if y has fewer than
            ``top_k`` classes.

    References:
        ``sklearn.metrics.accuracy_score`` and ``top_k_accuracy_score``.

    >>> metric, y = Accuracy(top_k=2), torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> metric.value(metric.add(metric.start(), y, torch.tensor([1, 2])))
    tensor(0.5000, dtype=torch.float64)
    """

    top_k: int = field(default=1, validator=size)
    num_classes: int | None = field(default=None, kw_only=True, validator=size_or_none)
    threshold: float = field(default=0.0, kw_only=True, validator=number())
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)

    @property
    def column(self) -> str:
        return self.name or (f"top_{self.top_k}_accuracy" if self.top_k > 1 else "accuracy")

    def start(self) -> Total:
        return {"right": count(), "counted": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        if self.top_k > 1:
            return self._among_the_largest(y, target)
        predicted, true, counted, _ = classes_of(self, y, target, self.ignore_index, self.threshold, self.num_classes)
        return {"right": ((predicted == true) & counted).sum(), "counted": counted.sum()}

    def _among_the_largest(self, y: Tensor, target: Tensor) -> Total:
        """Count the labels with fewer than ``top_k`` outputs ahead of them: larger ones, and equal ones of earlier classes."""
        y, target = scores(self, y, target, self.ignore_index)
        if self.top_k > y.shape[1]:
            raise value_error(self, f"y must have top_k={self.top_k} classes or more", f"y of shape {tuple(y.shape)}")
        require_classes(self, y.shape[1], self.num_classes)
        labels, counted = labels_of(self, y, target, self.ignore_index)
        labels = labels.unsqueeze(1)
        own = y.gather(1, labels)
        places = torch.arange(y.shape[1], device=y.device).reshape(-1, *[1] * (y.dim() - 2))
        before = ((y > own) | ((y == own) & (places < labels))).sum(1)
        return {"right": ((before < self.top_k) & counted).sum(), "counted": counted.sum()}

    def value(self, total: Total) -> Tensor:
        return total["right"].double() / total["counted"]
