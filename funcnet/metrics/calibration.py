"""Calibration: whether a share c of the predictions with confidence c is correct.

The confidence is divided into ``n_bins`` equal intervals. n_b is the number of rows whose confidence is in interval b, a_b the
share of them that are correct, and c_b their mean confidence; n = Σ n_b.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, one_of, size, value_error, whole_number
from funcnet.kernels.limits import softmax
from funcnet.kernels.tracing import is_plain
from funcnet.metrics.base import Metric, Total, amount, count
from funcnet.metrics.reading import as_rows, columns_of, labels_of, scores
from funcnet.value import frozen


@frozen
class CalibrationError(Metric):
    """Expected calibration error: the difference between confidence and accuracy, over intervals of confidence.

        value = Σ n_b |a_b - c_b| / n              norm="l1"
        value = √(Σ n_b (a_b - c_b)² / n)          norm="l2"
        value = max |a_b - c_b|                    norm="max"

    n_b is the number of rows whose confidence is in interval b, a_b the share of them that are correct, c_b their mean
    confidence. For several classes the confidence is the probability of the predicted class. For a single column it is that of
    class 1, and a_b is the share of class 1.

    Args:
        n_bins: Number of intervals [i/n_bins, (i+1)/n_bins); the last one includes 1.
        norm: ``"l1"``, ``"l2"`` or ``"max"``, as in the formulas.
        name: Column in the history; by default ``"calibration_error"``.
        from_logits: Whether y contains logits rather than probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), NaN if nothing counts.
        y may be a single column, (N, 1, ...) or (N,). Target may be one-hot rows or probabilities of the shape of y, of which the
        largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, if a label is out of range, or if a probability is
            outside 0 to 1.

    References:
        Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017, eq. 3 and 5; Kumar, Liang & Ma 2019 for ``"l2"``.

    >>> CalibrationError(from_logits=False)(torch.tensor([0.25, 0.25, 0.9]), torch.tensor([0, 1, 1]))
    tensor(0.2000, dtype=torch.float64)
    """

    n_bins: int = field(default=15, validator=size)
    norm: str = field(default="l1", validator=one_of("l1", "l2", "max"))
    from_logits: bool = field(default=True, kw_only=True, validator=flag)
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)

    def start(self) -> Total:
        return {"counted": count(), "right": count(), "confidence": amount()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        confidence, right, counted = self._confidences(*scores(self, y, target, self.ignore_index))
        at = (confidence * self.n_bins).long().clamp(0, self.n_bins - 1)
        each = {"counted": counted.long(), "right": (right & counted).long(), "confidence": torch.where(counted, confidence, 0.0)}
        return {key: rows.new_zeros(self.n_bins).scatter_add(0, at, rows) for key, rows in each.items()}

    def _confidences(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the confidence of each row, whether it is correct, and whether it counts."""
        if y.shape[1] == 1:
            of = columns_of(self, self._probabilities(y), target, self.ignore_index)
            return of.y.flatten(), of.true.flatten(), of.counted.flatten()
        labels, counted = labels_of(self, y, target, self.ignore_index)
        confidence, predicted = as_rows(self._probabilities(y)).max(1)
        return confidence, predicted == labels.flatten(), counted.flatten()

    def _probabilities(self, y: Tensor) -> Tensor:
        if self.from_logits:
            return y.double().sigmoid() if y.shape[1] == 1 else softmax(y.double(), 1)
        if is_plain(y) and ((y < 0) | (y > 1)).any():
            got = f"numbers from {y.min().item():g} to {y.max().item():g}"
            raise value_error(self, "with from_logits=False y must hold probabilities from 0 to 1", got)
        return y.double()

    def value(self, total: Total) -> Tensor:
        counted = total["counted"].double()
        apart = ((total["right"] - total["confidence"]) / counted.clamp_min(1)).abs()
        n = counted.sum()
        if self.norm == "max":
            return torch.where(n > 0, apart.max(), torch.nan)
        power = 2 if self.norm == "l2" else 1
        return ((counted * apart**power).sum() / n) ** (1 / power)
