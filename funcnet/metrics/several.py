"""Several metrics at once: ``metrics_of``, and the argument ``metrics`` of ``fit`` and ``evaluate``."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import describe, instances, value_error
from funcnet.metrics.base import Metric
from funcnet.metrics.means import Average
from funcnet.value import frozen

MetricLike = Metric | Callable[[Any, Any], Any]


@frozen
class SeveralMetrics(Metric):
    """Metrics whose totals and values are dicts by column; created by ``metrics_of``."""

    metrics: tuple[Metric, ...] = field(validator=instances(Metric, "metrics", several=True))

    def start(self) -> Any:
        return {one.column: one.start() for one in self.metrics}

    def total_of(self, y: Any, target: Any) -> Any:
        return {one.column: one.total_of(y, target) for one in self.metrics}

    def merge(self, total: Any, other: Any) -> Any:
        columns = {one.column for one in self.metrics}
        if not all(isinstance(one, dict) and one.keys() == columns for one in (total, other)):
            rule = f"a total must be a dict with the keys {', '.join(map(repr, sorted(columns)))}"
            raise value_error(self, rule, f"{describe(total)} and {describe(other)}")
        return {one.column: one.merge(total[one.column], other[one.column]) for one in self.metrics}

    def value(self, total: Any) -> dict[str, Any]:
        return {one.column: one.value(total[one.column]) for one in self.metrics}


Metrics = Sequence[MetricLike] | SeveralMetrics
"""The argument ``metrics`` of ``fit`` and ``evaluate``."""


def metrics_of(*metrics: MetricLike, **named: MetricLike) -> SeveralMetrics:
    """Join metrics into one, whose total and value are dicts with an entry for each metric.

        value = {name: value of each metric}

    Metrics that are already joined are flattened.

    Args:
        metrics: Metrics, or functions (y, target) → number, which are averaged as ``Average`` does.
        named: Metrics or functions by name, as in ``top5=Accuracy(top_k=5)``.

    Shape:
        y (N, ...) and target (N, ...), valid for all of the metrics.

    Returns:
        The joined metric.

    Raises:
        ValueError: If an argument is neither a metric nor a function, or if two have the same name.

    >>> import torch
    >>> from funcnet.metrics.regression import MeanAbsoluteError, R2
    >>> several, y = metrics_of(R2(), error=MeanAbsoluteError()), torch.tensor([1.0, 2.0, 3.0])
    >>> several(y, y)
    {'r2': tensor(1., dtype=torch.float64), 'error': tensor(0., dtype=torch.float64)}
    """
    parts = _parts([*metrics, *[_as_metric(one).replace(name=name) for name, one in named.items()]])
    return _joined("metrics_of", parts, "each metric must have its own name")


def _as_metric(one: Any) -> Metric:
    if not callable(one) or isinstance(one, type):
        raise value_error("metrics_of", "each must be a metric, or a function (y, target) -> number", describe(one))
    return one if isinstance(one, Metric) else Average(one)


def _parts(metrics: Sequence[MetricLike]) -> list[Metric]:
    """Return the metrics, with joined ones replaced by their parts; the name of a joined metric precedes those of its parts."""
    found: list[Metric] = []
    for one in map(_as_metric, metrics):
        inner = one.metrics if isinstance(one, SeveralMetrics) else (one,)
        found += [part.replace(name=f"{one.name}.{part.column}") for part in inner] if inner != (one,) and one.name else inner
    return found


def _joined(who: str, parts: Sequence[Metric], rule: str, taken: Sequence[str] = ()) -> SeveralMetrics:
    """Join metrics whose columns are all different, and not ``taken``."""
    names = [part.column for part in parts]
    for i, name in enumerate(names):
        if name in names[:i] or name in taken:
            raise value_error(who, rule, f"{name!r}{' twice' * (name in names[:i])}")
    return SeveralMetrics(tuple(parts))


def columns(who: str, metrics: Metrics, taken: Sequence[str]) -> SeveralMetrics:
    """Join the ``metrics`` of ``fit`` or ``evaluate``; no column may have a name in ``taken``."""
    metrics = (metrics,) if isinstance(metrics, SeveralMetrics) else metrics
    given = metrics if isinstance(metrics, (tuple, list)) else [metrics]
    odd = [one for one in given if given is not metrics or not callable(one) or isinstance(one, type)]
    if odd:
        rule = "metrics must be a list of metrics, such as F1(), and functions (y, target) -> number"
        raise value_error(who, rule, describe(odd[0]))
    return _joined(who, _parts(metrics), f"each metric must have its own name, and none of {', '.join(taken)}", taken)


def plain(value: Any) -> Any:
    """Return a 0-d tensor as a float, another tensor as a copy outside inference mode, and anything else unchanged."""
    if isinstance(value, Tensor):
        return value.clone() if value.dim() else float(value)
    return value
