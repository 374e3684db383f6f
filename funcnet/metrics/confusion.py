"""The confusion matrix, and what is computed from it: ConfusionMatrix, BalancedAccuracy, CohenKappa, MatthewsCorrelation.

M[t, s]               rows of true class t for which class s is said
T = Σₛ M, S = Σₜ M    how often each class is true and is said, n = Σ M, c = Σ M[k, k]

BalancedAccuracy      mean of M[k, k] / T[k] over the classes with T[k] > 0
CohenKappa            1 - Σ W M / Σ W E,  E = T Sᵀ / n      W[t, s] = (t ≠ s), |t - s| (linear) or (t - s)² (quadratic)
MatthewsCorrelation   (c n - T·S) / √((n² - S·S) (n² - T·T))

y is (N, classes, ...), (N, 1, ...) or (N,), or holds predicted classes (N, ...).
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
    """A metric whose total is a confusion matrix."""

    num_classes: int | None = field(default=None, validator=size_or_none)
    threshold: float = field(default=0.0, kw_only=True, validator=number())
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)

    def start(self) -> Total:
        return {"matrix": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        said, true, counted, n = classes_of(self, y, target, self.ignore_index, self.threshold, self.num_classes)
        cells = torch.zeros(n * n, dtype=torch.int64, device=true.device)
        return {"matrix": cells.scatter_add(0, true * n + said, counted.long()).reshape(n, n)}

    def matrix_in(self, total: Total) -> Tensor:
        """Return the matrix in a total, which must have seen a batch or know its classes."""
        matrix = total["matrix"]
        if matrix.dim() == 0 and self.num_classes is None:
            raise value_error(self, "the number of classes must be known from a batch or num_classes", "a total of no batch")
        return matrix.expand(self.num_classes, self.num_classes) if matrix.dim() == 0 else matrix  # type: ignore[arg-type]


@frozen
class ConfusionMatrix(FromConfusion):
    """How often each class is predicted for each true class.

        value = M      or M / T (rows sum to 1), M / S (columns), M / n

    Args:
        num_classes: Number of classes, needed only where y holds predicted classes.
        normalize: ``"true"`` divides by T, ``"pred"`` by S, ``"all"`` by n, where they are not 0.
        threshold: A single column predicts class 1 above it: 0 for logits, 0.5 for probabilities.
        ignore_index: The label that is left out.
        name: Column of the history, by default ``"confusion_matrix"``.

    Shape:
        y (N, classes, ...), (N, 1, ...) or (N,) with target (N, ...), or rows of the shape of y, of which the largest counts;
        or integers y, predicted classes, of the shape of target. The value is (classes, classes), true by predicted; counts
        are int64.

    Raises:
        ValueError: For other shapes, y with NaN where it counts, and labels out of range.

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
    """Mean over the classes of the share of their rows that are right; classes without rows are left out.

        value = mean of M[k, k] / T[k]

    Args, shapes and errors are those of ``ConfusionMatrix``.

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
    """Cohen's kappa: how much predictions and labels agree beyond chance.

        value = 1 - Σ W M / Σ W E      E = T Sᵀ / n

    Args:
        num_classes: As in ``ConfusionMatrix``, with which the other arguments, shapes and errors are shared.
        weights: ``None`` counts every disagreement once, ``"linear"`` by |t - s|, ``"quadratic"`` by (t - s)².

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
    """Matthews' correlation coefficient of predictions and labels, from -1 to 1; 0 if either has a single class.

        value = (c n - T·S) / √((n² - S·S) (n² - T·T))

    Args, shapes and errors are those of ``ConfusionMatrix``.

    References:
        Matthews 1975; Gorodkin 2004, eq. 8; ``sklearn.metrics.matthews_corrcoef``.

    >>> MatthewsCorrelation(2)(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    tensor(0.5774, dtype=torch.float64)
    """

    def value(self, total: Total) -> Tensor:
        matrix = self.matrix_in(total).double()
        n, true, said = matrix.sum(), matrix.sum(1), matrix.sum(0)
        spread = (n * n - said.dot(said)).sqrt() * (n * n - true.dot(true)).sqrt()
        return torch.where(spread == 0, 0.0, (matrix.trace() * n - true.dot(said)) / spread)
