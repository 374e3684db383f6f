"""The check of metrics: ``check_metric`` checks that the totals of a metric add up, for custom metrics too."""

import pickle
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.errors import describe, is_number, value_error
from funcnet.flattening import Tree
from funcnet.metrics.base import Metric
from funcnet.testing.assertions import assert_close

_TOLERANCE = 1e-9


def check_metric(metric: Metric, y: Tree, target: Tree, *, tolerance: float = _TOLERANCE) -> None:
    """Check the contract of a metric, with the rows of y and target.

    The value is the same for all rows at once and for any batches of them, added one after another or merged in any order; an
    empty total changes nothing. No argument is written to, the same rows give the same bits, ``torch.func.vmap`` over two copies
    gives the value twice, and the metric equals its pickled copy.

    Args:
        metric: The metric to check.
        y: Outputs of at least 3 rows, a tensor or a tree of tensors.
        target: Targets with the same number of rows.
        tolerance: Largest difference of values, relative and absolute.

    Raises:
        AssertionError: If the metric breaks the contract; the message starts with the rule.
        ValueError: If ``metric`` is not a metric, or there are fewer than 3 rows.

    >>> from funcnet.metrics.regression import R2
    >>> check_metric(R2(), torch.tensor([2.5, 0.0, 2.0, 8.0]), torch.tensor([3.0, -0.5, 2.0, 7.0]))
    """
    if not isinstance(metric, Metric):
        raise value_error("check_metric", "metric must be a metric", describe(metric))
    if not is_number(tolerance) or tolerance < 0:
        raise value_error("check_metric", "tolerance must be a finite number of at least 0", describe(tolerance))
    tolerance = float(tolerance)
    odd = [leaf for leaf in tree.leaves((y, target)) if not isinstance(leaf, Tensor) or leaf.dim() == 0]
    if odd:
        raise value_error("check_metric", "y and target must hold tensors with one row per example", describe(odd[0]))
    rows = min((len(leaf) for leaf in tree.leaves((y, target))), default=0)
    if rows < 3:
        raise value_error("check_metric", "y and target must have at least 3 rows", f"{rows}")
    before = tree.map(torch.clone, (y, target))
    whole = metric(y, target)
    _require(tree.allclose(before, (y, target), 0.0, 0.0, equal_nan=True), metric, "a metric must not write to y and target")
    _same(metric(y, target), whole, metric, "the same rows must give the same value", 0.0)
    for batches in _splits(y, target, rows):
        _check_batches(metric, batches, whole, tolerance)
    _check_vmap(metric, y, target, whole, tolerance)
    copy = pickle.loads(pickle.dumps(metric))
    _require(copy == metric and hash(copy) == hash(metric), metric, "a metric must equal its pickled copy")


def _require(condition: bool, metric: Metric, rule: str, got: str = "") -> None:
    if not condition:
        raise AssertionError(f"{rule}{got}: {metric!r}")


def _same(got: Any, want: Any, metric: Metric, rule: str, tolerance: float) -> None:
    try:
        assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    except AssertionError:
        raise AssertionError(f"{rule}, got {got} in place of {want}: {metric!r}") from None


def _splits(y: Tree, target: Tree, rows: int) -> Iterator[list[tuple[Tree, Tree]]]:
    """Yield all rows in batches: one, two of different sizes, three with an empty one, and a batch for each row."""
    for ends in ([rows], [rows // 3, rows], [1, 1, rows], [*range(1, rows + 1)]):
        yield [(_rows(y, a, b), _rows(target, a, b)) for a, b in pairwise([0, *ends])]


def _rows(x: Tree, a: int, b: int) -> Tree:
    return tree.map(lambda leaf: leaf[a:b], x)


def _check_batches(metric: Metric, batches: Sequence[tuple[Tree, Tree]], whole: Any, tolerance: float) -> None:
    total = reduce(lambda total, batch: metric.add(total, *batch), batches, metric.start())
    rule = f"{len(batches)} batches must give the value of all rows"
    _same(metric.value(total), whole, metric, rule, tolerance)
    parts = [metric.add(metric.start(), *batch) for batch in batches]
    kept = tree.map(torch.clone, parts)
    for ordered in (parts, parts[::-1], parts[1:] + parts[:1], [metric.start(), *parts], [*parts, metric.start()]):
        _same(
            metric.value(reduce(metric.merge, ordered)), whole, metric, "merged totals must give the value of all rows", tolerance
        )
    _require(tree.equal(kept, parts), metric, "merge and value must not write to a total")


def _check_vmap(metric: Metric, y: Tree, target: Tree, whole: Any, tolerance: float) -> None:
    def value(y: Tree, target: Tree) -> Any:
        return metric.value(metric.add(metric.start(), y, target))

    twice = tree.map(lambda leaf: torch.stack([leaf, leaf]), (y, target))
    mapped: Any = torch.func.vmap(value)(*twice)
    _same(mapped, tree.map(lambda leaf: torch.stack([leaf, leaf]), whole), metric, "vmap must give the value of each", tolerance)
