"""Accuracy: the share of right predictions, as a function of one batch and as a metric.

accuracy, Accuracy   Σ right / Σ counted      right = 1 where the label is among the top_k largest outputs
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import is_number, is_whole, number, size, size_or_none, value_error, whole_number
from funcnet.metrics.base import Metric, Total, count
from funcnet.metrics.reading import classes_of, labels_of, require_classes, scores
from funcnet.value import frozen


def accuracy(y: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the share of predictions that agree with the target, a 0-d tensor.

    The prediction is the class with the largest output. Where y has a single class, it holds logits, and the prediction is
    whether they are above 0: of probabilities, subtract 0.5.

    Args:
        y: (N, classes, ...), or (N, 1, ...) for two classes.
        target: Labels (N, ...), or one-hot or probability rows of the shape of y, of which the largest counts. With one class
            numbers from 0 to 1 of either shape.
        ignore_index: The label that is left out; if no other is left, the share is NaN.

    Raises:
        ValueError: For other shapes, y with NaN where it counts, labels out of range, and with one class targets that are not
            from 0 to 1.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, -100]))
    tensor(1.)
    """
    if not is_whole(ignore_index) or not is_number(ignore_index):
        raise value_error("accuracy", "ignore_index must be a whole number below 2**63", repr(ignore_index))
    if isinstance(y, Tensor) and isinstance(target, Tensor) and (y.dim() < 2 or not y.is_floating_point()):
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}" if y.is_floating_point() else y
        raise value_error("accuracy", "y must be (N, classes, ...), and target (N, ...) or (N, classes, ...)", got)
    said, true, counted, _ = classes_of("accuracy", y, target, ignore_index)
    return (((said == true) & counted).sum() / counted.sum()).to(torch.get_default_dtype())


def _labels_counted(target: Tensor) -> Tensor | int:
    """Return how many labels there are, without those ignored by default; of rows of probabilities, how many rows."""
    return len(target) if target.is_floating_point() else (target.long() != -100).sum()


accuracy.weight_of = _labels_counted  # type: ignore[attr-defined]


@frozen
class Accuracy(Metric):
    """Share of the labels that are among the ``top_k`` largest outputs.

        value = Σ right / Σ counted

    Args:
        top_k: How many of the largest outputs count as predictions; of equal outputs the first ones.
        num_classes: Number of classes, needed only where y holds predicted classes.
        threshold: A single column predicts class 1 above it: 0 for logits, 0.5 for probabilities.
        ignore_index: The label that is left out.
        name: Column of the history, by default ``"accuracy"``, or ``"top_2_accuracy"`` of the 2 largest.

    Shape:
        y (N, classes, ...), (N, 1, ...) or (N,) with target (N, ...), or rows of the shape of y, of which the largest counts;
        or integers y, predicted classes, of the shape of target. The value is (), NaN if nothing counts.

    Raises:
        ValueError: For other shapes, y with NaN where it counts, labels out of range, and a ``top_k`` above the number of
            classes.

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
        said, true, counted, _ = classes_of(self, y, target, self.ignore_index, self.threshold, self.num_classes)
        return {"right": ((said == true) & counted).sum(), "counted": counted.sum()}

    def _among_the_largest(self, y: Tensor, target: Tensor) -> Total:
        """Count the labels with fewer than ``top_k`` outputs before them: larger ones, and equal ones of earlier classes."""
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
