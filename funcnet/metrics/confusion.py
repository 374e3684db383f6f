"""The confusion matrix, and metrics computed from it.

M[t, p] is the number of rows of true class t that are predicted as class p. T = Σ_p M and P = Σ_t M are the numbers of rows of
each true and predicted class, n = Σ M, and c = Σ M[k, k] is the number of correct rows.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, one_of, size_or_none, value_error, whole_number
from funcnet.metrics.base import Metric, Total, count
from funcnet.metrics.reading import classes_of
from funcnet.value import frozen


@frozen
class FromConfusion(Metric):
    """Base of metrics whose total is a confusion matrix."""

    num_classes: int | None = field(default=None, validator=size_or_none)
    threshold: float = field(default=0.0, kw_only=True, validator=number())
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)

    def start(self) -> Total:
        return {"matrix": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        predicted, true, counted, n = classes_of(self, y, target, self.ignore_index, self.threshold, self.num_classes)
        cells = torch.zeros(n * n, dtype=torch.int64, device=true.device)
        return {"matrix": cells.scatter_add(0, true * n + predicted, counted.long()).reshape(n, n)}

    def matrix_in(self, total: Total) -> Tensor:
        """Return the confusion matrix in a total.

        Args:
            total: A total of at least one batch, unless ``num_classes`` is given.

        Raises:
            ValueError: If the number of classes is unknown.
        """
        matrix = total["matrix"]
        if matrix.dim() == 0 and self.num_classes is None:
            raise value_error(self, "the number of classes must be known, from a batch or num_classes", "a total of no batch")
        return matrix.expand(self.num_classes, self.num_classes) if matrix.dim() == 0 else matrix  # type: ignore[arg-type]


@frozen
class ConfusionMatrix(FromConfusion):
    """Number of rows of each true class that are predicted as each class.

        value = M          M[t, p] = number of rows of class t predicted as p
        value = M / T      with normalize="true": rows sum to 1, T = Σ_p M
        value = M / P      with normalize="pred": columns sum to 1, P = Σ_t M
        value = M / n      with normalize="all", n = Σ M

    Args:
        num_classes: Number of classes, required only if y contains predicted classes.
        normalize: ``"true"``, ``"pred"`` or ``"all"``, as in the formulas, with 0 for 0 / 0; ``None`` for counts.
        name: Column in the history; by default ``"confusion_matrix"``.
        threshold: Value above which a single column predicts class 1: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (classes, classes), true by predicted; int64 for counts.
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.confusion_matrix``.

    >>> ConfusionMatrix(num_classes=2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor([[1, 1],
            [0, 2]])
    """

    normalize: str | None = field(default=None, validator=one_of("true", "pred", "all", None))

    def value(self, total: Total) -> Tensor:
        matrix = self.matrix_in(total)
        if self.normalize is None:
            return matrix
        axes = {"true": (1,), "pred": (0,), "all": (0, 1)}[self.normalize]
        return matrix.double() / matrix.sum(axes, keepdim=True).clamp_min(1)


@frozen
class BalancedAccuracy(FromConfusion):
    """Mean recall of the classes: every class has the same weight, whatever its number of rows.

        value = mean of M[k, k] / T[k]         over the classes k with T[k] > 0

    M is the confusion matrix, M[t, p] for true class t and predicted class p, and T = Σ_p M.

    Args:
        num_classes: Number of classes, required only if y contains predicted classes.
        name: Column in the history; by default ``"balanced_accuracy"``.
        threshold: Value above which a single column predicts class 1: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value ().
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        ``sklearn.metrics.balanced_accuracy_score``.

    >>> BalancedAccuracy(2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.7500, dtype=torch.float64)
    """

    def value(self, total: Total) -> Tensor:
        matrix = self.matrix_in(total).double()
        return (matrix.diagonal() / matrix.sum(1)).nanmean()


@frozen
class CohenKappa(FromConfusion):
    """Cohen's kappa: agreement of predictions and labels beyond chance.

        value = 1 - Σ W M / Σ W E              E = T Pᵀ / n

    M is the confusion matrix, M[t, p] for true class t and predicted class p, with the sums T = Σ_p M, P = Σ_t M and n = Σ M.

    Args:
        num_classes: Number of classes, required only if y contains predicted classes.
        weights: ``None`` to count every disagreement once, W = (t ≠ p); ``"linear"`` for W = |t - p|; ``"quadratic"`` for W = (t
            - p)².
        name: Column in the history; by default ``"cohen_kappa"``.
        threshold: Value above which a single column predicts class 1: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value ().
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        Cohen 1960; Cohen 1968 for weights; ``sklearn.metrics.cohen_kappa_score``.

    >>> CohenKappa(2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.5000, dtype=torch.float64)
    """

    weights: str | None = field(default=None, validator=one_of(None, "linear", "quadratic"))

    def value(self, total: Total) -> Tensor:
        matrix = self.matrix_in(total).double()
        places = torch.arange(len(matrix), dtype=torch.float64, device=matrix.device)
        apart = (places.unsqueeze(1) - places).abs()
        w = {None: (apart > 0).double(), "linear": apart, "quadratic": apart.square()}[self.weights]
        expected = torch.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
        return 1 - (w * matrix).sum() / (w * expected).sum()


@frozen
class MatthewsCorrelation(FromConfusion):
    """Matthews' correlation coefficient of predictions and labels, from -1 to 1.

        value = (c n - T·P) / √((n² - P·P) (n² - T·T))

    M is the confusion matrix, M[t, p] for true class t and predicted class p, with the sums T = Σ_p M, P = Σ_t M, n = Σ M and
    c = Σ M[k, k]. The value is 0 if predictions or labels have a single class.

    Args:
        num_classes: Number of classes, required only if y contains predicted classes.
        name: Column in the history; by default ``"matthews_correlation"``.
        threshold: Value above which a single column predicts class 1: 0 for logits, 0.5 for probabilities.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value ().
        y may be a single column, (N, 1, ...) or (N,), or predicted classes, integers of the shape of target. Target may be
        one-hot rows or probabilities of the shape of y, of which the largest one counts.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, or if a label is out of range.

    References:
        Matthews 1975; Gorodkin 2004; ``sklearn.metrics.matthews_corrcoef``.

    >>> MatthewsCorrelation(2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.5774, dtype=torch.float64)
    """

    def value(self, total: Total) -> Tensor:
        matrix = self.matrix_in(total).double()
        n, true, predicted = matrix.sum(), matrix.sum(1), matrix.sum(0)
        spread = (n * n - predicted.dot(predicted)).sqrt() * (n * n - true.dot(true)).sqrt()
        return torch.where(spread == 0, 0.0, (matrix.trace() * n - true.dot(predicted)) / spread)
