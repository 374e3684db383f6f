"""Rankings: how well scores rank positive rows above negative ones: AUROC and AveragePrecision, exact or over thresholds.

P and N are the numbers of positive and negative rows of a label. At a score s, b⁻ is the number of negative rows with a score
below s, and b⁺ the number of negative rows with a score of at most s. tp and fp are the numbers of positive and negative rows
with a score of at least s.

With ``thresholds=None``, a total keeps every score, and the area is exact. With n evenly spaced thresholds from 0 to 1, it only
counts the probabilities between them: scores between the same two thresholds are ties, and totals have a fixed size and add up.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, is_whole, one_of, valid_if, value_error, whole_number
from funcnet.kernels.limits import log_softmax, softmax
from funcnet.kernels.tracing import is_plain
from funcnet.metrics.base import Metric, Total, count, require_mergeable
from funcnet.metrics.reading import Columns, columns_of, one_against_the_rest, scores
from funcnet.precision import in_single
from funcnet.value import frozen

_count_or_none = valid_if(lambda got: is_whole(got) and 2 <= got < 2**31, "a whole number of at least 2", optional=True)


class Steps(NamedTuple):
    """Counts at each score or interval, in rising order: positives at it and below it, negatives below it and up to it."""

    true: Tensor
    true_below: Tensor
    others_below: Tensor
    others_through: Tensor


@frozen
class Ranking(Metric):
    """Base of metrics of scores, with a column for each label; subclasses define the area."""

    thresholds: int | None = field(default=None, validator=_count_or_none)
    average: str | None = field(default="macro", validator=one_of("macro", "micro", "weighted", None))
    from_logits: bool = field(default=True, kw_only=True, validator=flag)
    ignore_index: int = field(default=-100, kw_only=True, validator=whole_number)

    @abstractmethod
    def area(self, steps: Steps, true: Tensor, others: Tensor) -> Tensor:
        """Return the area for each column.

        Args:
            steps: Counts, with the scores along axis 0.
            true: Number of positive rows, P.
            others: Number of negative rows, N.
        """

    def start(self) -> Total:
        if self.thresholds is None:
            return {"scores": torch.empty(0, 0), "true": torch.empty(0, 0, dtype=torch.int8)}
        return {"true": count(), "others": count()}

    def total_of(self, y: Tensor, target: Tensor) -> Total:
        y, target = scores(self, y, target, self.ignore_index)
        if target.shape == y.shape or y.shape[1] == 1:
            of = columns_of(self, self._squashed(y), target, self.ignore_index)
        else:
            of = one_against_the_rest(self, y, target, self.ignore_index, self._normalized)
        if self.thresholds is None:
            return {"scores": of.y, "true": torch.where(of.counted, of.true.to(torch.int8), -1)}
        return self._between_thresholds(of, self.thresholds)

    def _squashed(self, y: Tensor) -> Tensor:
        """Return the scores of independent labels. Exact areas need no sigmoid, since they depend only on the order."""
        return y.double().sigmoid() if self.from_logits and self.thresholds else in_single(y)

    def _normalized(self, y: Tensor) -> Tensor:
        """Return the scores of classes. Log-probabilities have the same order as probabilities, and fewer ties."""
        if not self.from_logits:
            return in_single(y)
        return softmax(y.double(), 1) if self.thresholds else log_softmax(y.double(), 1)

    def _between_thresholds(self, of: Columns, n: int) -> Total:
        if is_plain(of.y) and ((of.y < 0) | (of.y > 1)).any():
            got = f"numbers from {of.y.min().item():g} to {of.y.max().item():g}"
            raise value_error(self, "with thresholds and from_logits=False y must hold probabilities from 0 to 1", got)
        at = torch.bucketize(of.y.contiguous(), torch.linspace(0, 1, n, dtype=torch.float64, device=of.y.device), right=True)
        nothing = torch.zeros(n + 1, of.y.shape[1], dtype=torch.int64, device=of.y.device)
        true, others = (nothing.scatter_add(0, at, (rows & of.counted).long()) for rows in (of.true, ~of.true))
        return {"true": true, "others": others}

    def merge(self, total: Any, other: Any) -> Any:
        if self.thresholds is not None:
            return Metric.merge(self, total, other)
        empty = [one for one in (total, other) if len(one["true"]) == 0]
        if empty:
            return other if empty[0] is total else total
        require_mergeable(self, {key: total[key][0] for key in total}, {key: other[key][0] for key in other})
        return {key: torch.cat((total[key], other[key])) for key in total}

    def value(self, total: Total) -> Tensor:
        steps = _of_scores(*self._pooled(total)) if self.thresholds is None else _of_intervals(*self._pooled(total))
        true, others = steps.true.sum(0), steps.others_through[-1:].sum(0)
        each = self.area(steps, true, others)
        if self.average is None:
            return each
        return each.nanmean() if self.average != "weighted" else _weighted(each, true.double())

    def _pooled(self, total: Total) -> list[Tensor]:
        """Return the leaves of a total; with ``"micro"``, all labels are in one column."""
        leaves = [leaf if leaf.dim() == 2 else leaf.reshape(1, 1) for leaf in total.values()]
        if self.average != "micro":
            return leaves
        return [leaf.reshape(-1, 1) if self.thresholds is None else leaf.sum(1, keepdim=True) for leaf in leaves]


def _weighted(each: Tensor, weights: Tensor) -> Tensor:
    weights = torch.where(each.isnan(), 0.0, weights)
    return (each.nan_to_num() * weights).sum() / weights.sum()


def _of_scores(scores: Tensor, true: Tensor) -> Steps:
    """Sort the columns and count at each score; equal scores get the counts below the first and through the last of them."""
    ordered, order = scores.sort(0)
    true = true.gather(0, order)
    hits, others = (true == 1).long(), (true == 0).long()
    places = torch.arange(len(true), device=true.device).unsqueeze(1).expand_as(true)
    same = ordered[1:] == ordered[:-1]
    edge = torch.ones_like(true[:1], dtype=torch.bool)
    first = torch.where(torch.cat((edge, ~same))[: len(true)], places, 0)
    last = torch.where(torch.cat((~same, edge))[: len(true)], places, len(true))
    first, last = first.cummax(0).values, last.flip(0).cummin(0).values.flip(0)
    hits_below, others_below = ((counts.cumsum(0) - counts).gather(0, first) for counts in (hits, others))
    return Steps(hits, hits_below, others_below, others.cumsum(0).gather(0, last))


def _of_intervals(true: Tensor, others: Tensor) -> Steps:
    through = others.cumsum(0)
    return Steps(true, true.cumsum(0) - true, through - others, through)


@frozen
class AUROC(Ranking):
    """Area under the receiver operating characteristic: the probability that a positive row is scored above a negative one.

        value = Σ (b⁻ + b⁺) / (2 P N)      for each label, then averaged

    The sum runs over the scores of the P positive rows. b⁻ is the number of the N negative rows with a lower score, b⁺ the number
    with at most that score: ties count half. The area of a label without positive or without negative rows is NaN, and is left
    out of averages. Integer arithmetic makes exact values independent of the order of batches, bit for bit.

    Args:
        thresholds: ``None`` for the exact area, with a total that keeps all scores; n to count scores between n thresholds from 0
            to 1: totals then have a fixed size, for long runs and compiled code.
        average: How the areas of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by P;
            ``"micro"``, the area of all labels pooled; ``None``, the area of each label.
        name: Column in the history; by default ``"auroc"``.
        from_logits: Whether y contains logits. Scores of several classes are then their softmax, each class against the rest;
            with ``thresholds``, scores of independent labels are their sigmoid.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``.
        y may be a single column, (N, 1, ...) or (N,). For independent labels, y and target are (N, labels, ...), with targets 0
        or 1.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, if a label is out of range, or if a probability is
            outside 0 to 1.

    References:
        Fawcett 2006, "An introduction to ROC analysis"; ``sklearn.metrics.roc_auc_score`` with ``multi_class="ovr"``.

    >>> AUROC()(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    tensor(0.7500, dtype=torch.float64)
    """

    def area(self, steps: Steps, true: Tensor, others: Tensor) -> Tensor:
        twice = (steps.true * (steps.others_below + steps.others_through)).sum(0)
        return twice / (2.0 * true.double() * others.double())


@frozen
class AveragePrecision(Ranking):
    """Area under the precision-recall curve as a step function: the mean precision at the scores of the positive rows.

        value = Σ tp / (tp + fp) / P      for each label, then averaged

    The sum runs over the scores of the P positive rows. tp and fp are the numbers of positive and negative rows with at least
    that score. The area of a label without positive rows is NaN, and is left out of averages.

    Args:
        thresholds: ``None`` for the exact area, with a total that keeps all scores; n to count scores between n thresholds from 0
            to 1: totals then have a fixed size, for long runs and compiled code.
        average: How the areas of the labels become one: ``"macro"``, their mean; ``"weighted"``, their mean weighted by P;
            ``"micro"``, the area of all labels pooled; ``None``, the area of each label.
        name: Column in the history; by default ``"average_precision"``.
        from_logits: Whether y contains logits. Scores of several classes are then their softmax, each class against the rest;
            with ``thresholds``, scores of independent labels are their sigmoid.
        ignore_index: Label of rows that are left out.

    Shape:
        y (N, classes, ...) and target (N, ...) → value (), or (classes,) with ``average=None``.
        y may be a single column, (N, 1, ...) or (N,). For independent labels, y and target are (N, labels, ...), with targets 0
        or 1.

    Raises:
        ValueError: If shapes do not fit, if y holds NaN where it counts, if a label is out of range, or if a probability is
            outside 0 to 1.

    References:
        ``sklearn.metrics.average_precision_score``.

    >>> AveragePrecision()(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8333, dtype=torch.float64)
    """

    def area(self, steps: Steps, true: Tensor, others: Tensor) -> Tensor:
        tp, fp = true - steps.true_below, others - steps.others_below
        return (steps.true * (tp / (tp + fp).clamp_min(1).double())).sum(0) / true
