"""Metrics of numbers: MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError, R2 and ExplainedVariance.

y and target have one shape (N, ...).

    d = target - y,  over all n elements, or for R2 and ExplainedVariance over the rows of each output:

    MeanAbsoluteError      Σ |d| / n
    MeanSquaredError       Σ d² / n                 RootMeanSquaredError   √(Σ d² / n)
    R2                     1 - Σ d² / Σ (target - mean)²
    ExplainedVariance      1 - Σ (d - mean d)² / Σ (target - mean)²

R2 and ExplainedVariance keep means and sums of squares about them, and merge them by the formula of Chan, Golub & LeVeque 1979:
m = mₐ + δ n_b / n, M = Mₐ + M_b + δ² nₐ n_b / n with δ = m_b - mₐ. No large squares are subtracted.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import one_of, value_error
from funcnet.metrics.base import Metric, Total, amount, count, require_mergeable
from funcnet.metrics.reading import dense
from funcnet.value import frozen


def _in_double(metric: Metric, y: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Return y and target in float64; they must have the same shape, since nothing is broadcast."""
    y, target = dense(metric, y, target)
    if y.is_complex() or target.is_complex() or y.shape != target.shape or y.dim() == 0:
        rule = "y and target must be real, and have the same shape (N, ...)"
        raise value_error(metric, rule, f"shapes {tuple(y.shape)} and {tuple(target.shape)}, {y.dtype} and {target.dtype}")
    return y.double(), target.double()


@frozen
class MeanError(Metric):
    """A mean over all elements; a subclass has the terms."""

    @abstractmethod
    def terms(self, d: Tensor) -> Tensor:
        """Return the terms of the mean from the differences."""

    def start(self) -> Total:
        return {"sum": amount(), "count": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        y, target = _in_double(self, y, target)
        return {"sum": self.terms(target - y).sum(), "count": count(y.numel(), y)}

    def value(self, total: Total) -> Tensor:
        return total["sum"] / total["count"]


@frozen
class MeanAbsoluteError(MeanError):
    """Mean distance of outputs and targets, over all elements.

        value = Σ |target - y| / n

    Args:
        name: Column of the history, by default ``"mean_absolute_error"``.

    Shape:
        y (N, ...) and target of the same shape; the value is (), NaN of nothing.

    Raises:
        ValueError: For two shapes, and complex numbers.

    References:
        ``sklearn.metrics.mean_absolute_error``.

    >>> MeanAbsoluteError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(1., dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.abs()


@frozen
class MeanSquaredError(MeanError):
    """Mean squared distance of outputs and targets, over all elements; shapes and errors as in ``MeanAbsoluteError``.

        value = Σ (target - y)² / n

    References:
        ``sklearn.metrics.mean_squared_error``.

    >>> MeanSquaredError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(2., dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.square()


@frozen
class RootMeanSquaredError(MeanError):
    """Root of the mean squared distance over all elements, in the unit of y; shapes and errors as in ``MeanAbsoluteError``.

        value = √(Σ (target - y)² / n)

    References:
        ``sklearn.metrics.root_mean_squared_error``, but for its mean of the roots of several outputs.

    >>> RootMeanSquaredError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(1.4142, dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.square()

    def value(self, total: Total) -> Tensor:
        return MeanError.value(self, total).sqrt()


@frozen
class ShareExplained(Metric):
    """A share of the variance of each output; a subclass says what is left unexplained."""

    multioutput: str = field(default="uniform_average", validator=one_of("uniform_average", "variance_weighted", "raw_values"))

    @abstractmethod
    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        """Return what is left, of the differences: their number, mean, and sum of squares about it."""

    def start(self) -> Total:
        return {"count": count(), "mean": amount(), "squares": amount(), "mean_d": amount(), "squares_d": amount()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        y, target = (x.reshape(len(x), math.prod(x.shape[1:])) for x in _in_double(self, y, target))
        (mean, squares), (mean_d, squares_d) = _moments(target), _moments(target - y)
        return {"count": count(len(y), y), "mean": mean, "squares": squares, "mean_d": mean_d, "squares_d": squares_d}

    def merge(self, total: Any, other: Any) -> Any:
        require_mergeable(self, total, other)
        na, nb = total["count"].double(), other["count"].double()
        n = total["count"] + other["count"]
        share = nb / n.clamp_min(1)
        merged = {"count": n}
        for mean, squares in (("mean", "squares"), ("mean_d", "squares_d")):
            apart = other[mean] - total[mean]
            merged[mean] = total[mean] + apart * share
            merged[squares] = total[squares] + other[squares] + apart.square() * na * share
        return merged

    def value(self, total: Total) -> Tensor:
        left, all_of_it = self.unexplained(total["count"], total["mean_d"], total["squares_d"]), total["squares"]
        constant = torch.where(left == 0, 1.0, 0.0)  # as in sklearn: of targets that do not vary, all or nothing is explained
        each = torch.where(all_of_it == 0, constant, 1 - left / all_of_it)
        each = torch.where(total["count"] > 1, each, torch.nan)
        if self.multioutput == "raw_values":
            return each.reshape(-1)
        weights = all_of_it if self.multioutput == "variance_weighted" else torch.ones_like(each)
        weights = torch.where((weights == 0).all(), 1.0, weights)
        return (each * weights).sum() / weights.sum()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean along axis 0 and Σ (x - mean)²; about the first row, so that constants have exactly their mean."""
    if not len(x):
        return x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:])
    mean = x[0] + (x - x[0]).mean(0)
    return mean, (x - mean).square().sum(0)


@frozen
class R2(ShareExplained):
    """Coefficient of determination: the share of the targets' variance that y explains.

        value = 1 - Σ (target - y)² / Σ (target - mean)²

    Args:
        multioutput: ``"uniform_average"`` or ``"variance_weighted"`` over the outputs, or ``"raw_values"``, each output.
        name: Column of the history, by default ``"r2"``.

    Shape:
        y (N, ...) and target of the same shape: N rows, every other element an output. The value is (), or (outputs,) with
        ``"raw_values"``; NaN of fewer than two rows. Of an output whose targets are equal it is 1 where y is exact, else 0.

    Raises:
        ValueError: For two shapes, and complex numbers.

    References:
        ``sklearn.metrics.r2_score``.

    >>> R2()(torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0]))
    tensor(0.9486, dtype=torch.float64)
    """

    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        return squares + count * mean.square()


@frozen
class ExplainedVariance(ShareExplained):
    """Share of the targets' variance that y explains, whatever its mean error; the rest is as in ``R2``.

        value = 1 - Σ (d - mean d)² / Σ (target - mean)²,    d = target - y

    References:
        ``sklearn.metrics.explained_variance_score``.

    >>> ExplainedVariance()(torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0]))
    tensor(0.9572, dtype=torch.float64)
    """

    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        return squares
