"""The contract of metrics: frozen values that measure outputs y against targets, over batches that add up.

    metric.start() -> total                          nothing measured yet
    metric.add(total, y, target) -> total            with one more batch
    metric.merge(total, other) -> total              with everything that another total has seen, for example on another rank
    metric.value(total) -> value
    metric(y, target) -> value                       of one batch

A total is a dict of tensors. The value does not depend on how rows are split into batches, or on the order in which totals are
merged. Counts are int64 and exact, sums are float64. Values are float64 tensors.

Most totals are sums, so ``tree.add`` or an all-reduce can replace ``merge``. The totals of ``R2`` and ``ExplainedVariance``, and
of ``AUROC`` and ``AveragePrecision`` without thresholds, are not sums. A rank without data adds an empty batch, whose total has
the usual shapes.

To write a metric, subclass ``Metric`` with ``@frozen`` and define ``start``, ``total_of`` and ``value``, and also ``merge`` if
its totals are not sums.
"""

import functools
import re
from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import shapes_of
from funcnet.errors import valid_if, value_error
from funcnet.explanations import explain_metric_error, raise_explained
from funcnet.value import Value, frozen

Total = dict[str, Tensor]

_TENSORS = "y and target must be dense tensors on one device, with shapes and dtypes that fit each other"
_RULES = {
    "total_of": _TENSORS,
    "merge": "totals must be of this metric, as start and add make them",
    "value": "total must be of this metric, as start and add make it",
}


def _guarded(verb: Any, rule: str) -> Any:
    """Wrap a verb so that its errors state the rule for its arguments; a successful call pays for one more call."""

    @functools.wraps(verb)
    def guarded(self: Any, *given: Any, **named: Any) -> Any:
        try:
            return verb(self, *given, **named)
        except Exception as error:
            raise_explained(explain_metric_error(self, rule, (*given, *named.values()), error), error)

    return guarded


@frozen
class Metric(Value):
    """A frozen value with ``start``, ``add``, ``merge`` and ``value``: base of all metrics.

        total = metric.merge(metric.start(), metric.total_of(y, target))
        value = metric.value(total)

    A subclass defines ``start``, ``total_of`` and ``value``, and also ``merge`` if its totals are not sums.

    Args:
        name: Column in the history; by default the name of the class in snake case.

    >>> @frozen
    ... class ShareOfZeros(Metric):
    ...     def start(self):
    ...         return {"zeros": count(), "all": count()}
    ...
    ...     def total_of(self, y, target):
    ...         return {"zeros": (y == 0).sum(), "all": count(y.numel(), y)}
    ...
    ...     def value(self, total):
    ...         return total["zeros"] / total["all"]
    >>> ShareOfZeros()(torch.tensor([0.0, 1.0]), None)
    tensor(0.5000)
    """

    name: str | None = field(
        default=None, kw_only=True, validator=valid_if(lambda got: isinstance(got, str) and got != "", "a name", optional=True)
    )

    @property
    def column(self) -> str:
        """The name of the metric in a history: ``name``, or the name of the class in snake case."""
        return self.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(self).__name__).lower()

    @abstractmethod
    def start(self) -> Any:
        """Return the total before the first batch: 0-d zeros, which add to totals of any shape and device."""

    @abstractmethod
    def total_of(self, y: Any, target: Any) -> Any:
        """Return the total of one batch.

        Args:
            y: Outputs.
            target: Targets.

        Returns:
            A dict of tensors.
        """

    @abstractmethod
    def value(self, total: Any) -> Any:
        """Return the value of all batches in a total.

        Args:
            total: A total, as ``start``, ``add`` and ``merge`` return it.
        """

    def add(self, total: Any, y: Any, target: Any) -> Any:
        """Return a total with one more batch.

        Args:
            total: A total, as ``start`` and ``add`` return it.
            y: Outputs of the batch.
            target: Targets of the batch.
        """
        return self.merge(total, self.total_of(y, target))

    def merge(self, total: Any, other: Any) -> Any:
        """Merge two totals into one; by default, add them.

        Args:
            total: A total.
            other: Another total of the same metric.
        """
        require_mergeable(self, total, other)
        return {key: total[key] + other[key] for key in total}

    def __call__(self, y: Any, target: Any) -> Any:
        """Return the value of one batch."""
        return self.value(self.total_of(y, target))

    @classmethod
    def _when_frozen(cls) -> None:
        """Wrap the verbs that a class defines so that they explain their errors."""
        for verb, rule in _RULES.items():
            if verb in cls.__dict__ and not getattr(cls.__dict__[verb], "__isabstractmethod__", False):
                setattr(cls, verb, _guarded(cls.__dict__[verb], rule))


def require_mergeable(metric: Metric, total: Any, other: Any) -> None:
    """Raise ``ValueError`` if two totals have different keys or shapes; the 0-d tensors of ``start`` match any shape."""
    one, two = shapes_of(total), shapes_of(other)
    fit = one is not None and two is not None and one.keys() == two.keys()
    if not fit or any(one[key] != two[key] and () not in (one[key], two[key]) for key in one):  # type: ignore[index, union-attr]
        raise value_error(metric, "totals must have the same keys and shapes", f"{one} and {two}")


def count(n: int = 0, like: Tensor | None = None) -> Tensor:
    """Return a count as a 0-d int64 tensor, on the device of ``like``."""
    return torch.full((), n, dtype=torch.int64, device=None if like is None else like.device)


def amount(like: Tensor | None = None) -> Tensor:
    """Return an empty sum, a 0-d float64 tensor, on the device of ``like``."""
    return torch.zeros((), dtype=torch.float64, device=None if like is None else like.device)
