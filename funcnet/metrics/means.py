"""Means over batches: Average of a loss or any function, and Perplexity."""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.errors import describe, value_error, whole_number
from funcnet.losses.classification import CrossEntropy
from funcnet.losses.loss import Loss, rows_of
from funcnet.metrics.base import Metric, Total, amount, count
from funcnet.metrics.reading import dense
from funcnet.precision import in_single
from funcnet.value import frozen


def _function(value: Any, attribute: Any, got: Any) -> None:
    """Validate the function; reject a class in place of its instance."""
    if not callable(got) or isinstance(got, type):
        raise value_error("Average", f"{attribute.name} must be a function (y, target) -> number", describe(got))


@frozen
class Average(Metric):
    """Mean of a loss, or of any function (y, target) → number, over batches.

        value = Σ w f(y, target) / Σ w         w = f.weight_of(target), or the number of rows

    The method ``weight_of`` of a loss makes the value independent of how rows are split into batches. The values of a loss with
    ``reduction="sum"`` are added. A batch of weight 0 does not count.

    Args:
        f: Function or loss. If a loss returns several values, their mean is used.
        name: Column in the history; by default the name of the function, or the repr of the loss.

    Shape:
        y (N, ...) and target, as ``f`` takes them → value (), NaN without rows.

    Raises:
        ValueError: If ``f`` is not a function, or returns more than one number.

    >>> def largest(y, target):
    ...     return (y - target).abs().max()
    >>> metric, y = Average(largest), torch.tensor([1.0, 3.0])
    >>> metric.column, metric.value(metric.add(metric.start(), y, torch.zeros(2)))
    ('largest', tensor(3., dtype=torch.float64))
    """

    f: Any = field(validator=_function)

    @property
    def column(self) -> str:
        return str(self.name or getattr(self.f, "__name__", self.f))

    def start(self) -> Total:
        return {"sum": amount(), "weight": amount()}

    def total_of(self, y: Any, target: Any) -> Total:
        value = self._number(self.f(y, target))
        w = amount(value) + self._weight(y, target)
        return {"sum": torch.where(w == 0, 0.0, value * w), "weight": w}

    def _number(self, value: Any) -> Tensor:
        value = value.mean() if isinstance(self.f, Loss) else value
        number = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        if number.numel() != 1 or number.is_complex():
            raise value_error(self, "the function must return a number", describe(value))
        return number.double().reshape(())

    def _weight(self, y: Any, target: Any) -> Tensor | float:
        """Return w: 1 for a sum; the rows of y if there is no target."""
        if getattr(self.f, "reduction", None) == "sum":
            return 1.0
        known, weight_of = bool(tree.leaves(target)), getattr(self.f, "weight_of", None)
        return weight_of(target) if weight_of and known else rows_of(target if known else y)

    def value(self, total: Total) -> Tensor:
        return total["sum"] if getattr(self.f, "reduction", None) == "sum" else total["sum"] / total["weight"]


@frozen
class Perplexity(Metric):
    """Exponential of the mean cross-entropy: the number of equally likely classes with the same uncertainty.

        value = exp(Σ ℓ / n)         ℓ = -log softmax(y) at the label, n labels that are not ignored

    Args:
        ignore_index: Label of rows that are left out, such as padding.
        name: Column in the history; by default ``"perplexity"``.

    Shape:
        y logits (N, classes, ...) and target (N, ...), as for ``CrossEntropy`` → value (), NaN if nothing counts.

    Raises:
        ValueError: As ``CrossEntropy`` does.

    References:
        Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks".

    >>> Perplexity()(torch.zeros(2, 7), torch.tensor([3, 5]))
    tensor(7.0000, dtype=torch.float64)
    """

    ignore_index: int = field(default=-100, validator=whole_number)

    def start(self) -> Total:
        return {"sum": amount(), "count": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        loss = CrossEntropy(ignore_index=self.ignore_index, reduction="none")
        y, target = dense(self, y, target)
        terms = loss(in_single(y), target)
        return {"sum": terms.double().sum(), "count": (target.long() != self.ignore_index).sum()}

    def value(self, total: Total) -> Tensor:
        return (total["sum"] / total["count"]).exp()
