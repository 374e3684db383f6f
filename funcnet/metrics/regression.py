"""Metrics of regression: MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError, R2 and ExplainedVariance.

y and target have the same shape (N, ...). Errors are averaged over all n elements; ``R2`` and ``ExplainedVariance`` are computed
over the rows, for each output.

R2 and ExplainedVariance keep means and centered sums of squares, and merge them with a formula of Chan, Golub & LeVeque 1979: m =
mₐ + δ n_b / n, M = Mₐ + M_b + δ² nₐ n_b / n with δ = m_b - mₐ. No large squares are subtracted.
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
    """Return y and target in float64; raise ``ValueError`` unless they have the same shape: nothing is broadcast."""
    y, target = dense(metric, y, target)
    if y.is_complex() or target.is_complex() or y.shape != target.shape or y.dim() == 0:
        rule = "y and target must be real, and have the same shape (N, ...)"
        raise value_error(metric, rule, f"shapes {tuple(y.shape)} and {tuple(target.shape)}, {y.dtype} and {target.dtype}")
    return y.double(), target.double()


@frozen
class MeanError(Metric):
    """Base of means over all elements; subclasses define the terms."""

    @abstractmethod
    def terms(self, d: Tensor) -> Tensor:
        """Return the terms of the mean.

        Args:
            d: Differences target - y, float64.
        """

    def start(self) -> Total:
        return {"sum": amount(), "count": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        y, target = _in_double(self, y, target)
        return {"sum": self.terms(target - y).sum(), "count": count(y.numel(), y)}

    def value(self, total: Total) -> Tensor:
        return total["sum"] / total["count"]


@frozen
class MeanAbsoluteError(MeanError):
    """Mean absolute error over all elements.

        value = Σ |target - y| / n

    Args:
        name: Column in the history; by default ``"mean_absolute_error"``.

    Shape:
        y (N, ...) and target (N, ...) of the same shape → value (), NaN without elements.

    Raises:
        ValueError: If the shapes differ, or if a tensor is complex.

    References:
        ``sklearn.metrics.mean_absolute_error``.

    >>> MeanAbsoluteError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(1., dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.abs()


@frozen
class MeanSquaredError(MeanError):
    """Mean squared error over all elements.

        value = Σ (target - y)² / n

    Args:
        name: Column in the history; by default ``"mean_squared_error"``.

    Shape:
        y (N, ...) and target (N, ...) of the same shape → value (), NaN without elements.

    Raises:
        ValueError: If the shapes differ, or if a tensor is complex.

    References:
        ``sklearn.metrics.mean_squared_error``.

    >>> MeanSquaredError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(2., dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.square()


@frozen
class RootMeanSquaredError(MeanError):
    """Root of the mean squared error over all elements, in the unit of y.

        value = √(Σ (target - y)² / n)

    Args:
        name: Column in the history; by default ``"root_mean_squared_error"``.

    Shape:
        y (N, ...) and target (N, ...) of the same shape → value (), NaN without elements.

    Raises:
        ValueError: If the shapes differ, or if a tensor is complex.

    References:
        ``sklearn.metrics.root_mean_squared_error``, which averages the roots of several outputs instead.

    >>> RootMeanSquaredError()(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    tensor(1.4142, dtype=torch.float64)
    """

    def terms(self, d: Tensor) -> Tensor:
        return d.square()

    def value(self, total: Total) -> Tensor:
        return MeanError.value(self, total).sqrt()


@frozen
class ShareExplained(Metric):
    """Base of shares of the variance of each output; subclasses define the unexplained part."""

    multioutput: str = field(default="uniform_average", validator=one_of("uniform_average", "variance_weighted", "raw_values"))

    @abstractmethod
    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        """Return the unexplained sum of squares, from the differences d = target - y of each output.

        Args:
            count: Number of rows.
            mean: Mean of d.
            squares: Sum of squares of d about its mean.
        """

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
        constant = torch.where(left == 0, 1.0, 0.0)  # as in sklearn: for constant targets, all or nothing is explained
        each = torch.where(all_of_it == 0, constant, 1 - left / all_of_it)
        each = torch.where(total["count"] > 1, each, torch.nan)
        if self.multioutput == "raw_values":
            return each.reshape(-1)
        weights = all_of_it if self.multioutput == "variance_weighted" else torch.ones_like(each)
        weights = torch.where((weights == 0).all(), 1.0, weights)
        return (each * weights).sum() / weights.sum()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean along axis 0 and Σ (x - mean)², relative to the first row: the mean of a constant is then exact."""
    if not len(x):
        return x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:])
    mean = x[0] + (x - x[0]).mean(0)
    return mean, (x - mean).square().sum(0)


@frozen
class R2(ShareExplained):
    """Coefficient of determination: the share of the targets' variance that y explains.

        value = 1 - Σ (target - y)² / Σ (target - mean)²        for each output, then averaged

    Args:
        multioutput: How the values of the outputs become one: ``"uniform_average"``, their mean; ``"variance_weighted"``, their
            mean weighted by the variance of the targets; ``"raw_values"``, the value of each output.
        name: Column in the history; by default ``"r2"``.

    Shape:
        y (N, ...) and target (N, ...) of the same shape → value (), or (outputs,) with ``"raw_values"``; NaN for fewer than two
        rows.
        Every element of a row is an output. For an output with constant targets, the value is 1 if y is exact, else 0.

    Raises:
        ValueError: If the shapes differ, or if a tensor is complex.

    References:
        ``sklearn.metrics.r2_score``.

    >>> R2()(torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0]))
    tensor(0.9486, dtype=torch.float64)
    """

    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        return squares + count * mean.square()


@frozen
class ExplainedVariance(ShareExplained):
    """Share of the targets' variance that y explains, without counting a constant error.

        value = 1 - Σ (d - mean d)² / Σ (target - mean)²        d = target - y, for each output, then averaged

    Args:
        multioutput: How the values of the outputs become one: ``"uniform_average"``, their mean; ``"variance_weighted"``, their
            mean weighted by the variance of the targets; ``"raw_values"``, the value of each output.
        name: Column in the history; by default ``"explained_variance"``.

    Shape:
        y (N, ...) and target (N, ...) of the same shape → value (), or (outputs,) with ``"raw_values"``; NaN for fewer than two
        rows.
        Every element of a row is an output. For an output with constant targets, the value is 1 if d is constant, else
        0.

    Raises:
        ValueError: If the shapes differ, or if a tensor is complex.

    References:
        ``sklearn.metrics.explained_variance_score``.

    >>> ExplainedVariance()(torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0]))
    tensor(0.9572, dtype=torch.float64)
    """

    def unexplained(self, count: Tensor, mean: Tensor, squares: Tensor) -> Tensor:
        return squares
