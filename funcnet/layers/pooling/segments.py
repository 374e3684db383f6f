"""Segments: rows that follow one another belong together, so many to each segment, and each segment is reduced to one row.

    sum, mean     y[j] = Σ x[i] / m[j]     gx[i] = gy[j] / m[j]      i in segment j; m = 1, or for a mean their number
    first, last   y[j] = x[k]              gx[k] = gy[j]             k the first or last row of j
    max, min      y[j] = x[k]              gx[k] = gy[j] / n        by element; n of the x[k] are equally large or small

An empty segment has y = 0. Lengths have no gradient.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import one_of, value_error
from funcnet.kernels.tracing import is_differentiated, is_plain, is_untransformed
from funcnet.precision import in_single, rounded
from funcnet.value import frozen

SegmentCache = tuple[Tensor, Any, tuple[int, ...], tuple[int, ...], Tensor]
"""The segment of each row, or the row of each segment; for a mean the counts, for an extreme x and y; the shapes of x and y;
an empty tensor of the dtype and device of x."""


@frozen
class SegmentPool(Layer):
    """One row for each segment of x: (x, lengths), x (rows, ...) and integers (segments,), gives y (segments, ...).

    Lengths may be 0, and rows behind the last segment count for nothing. ``reduction`` is "sum", "mean", "max", "min", "first"
    or "last"; several elements that are equally large, or small, share the gradient.

    Params   none.
    Cache    the segment of each row, for a mean the lengths, for the largest or smallest ``x`` and ``y``; or the row of each
             segment; the shapes of ``x`` and ``y``; and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for an unknown ``reduction``, an ``x`` that is no floating tensor with rows, and lengths that are not
             integers with one axis, or negative, or more than there are rows.
    Source   ``thinc.layers.reduce_sum``, ``reduce_mean``, ``reduce_max``, ``reduce_first`` and ``reduce_last``.
    """

    reduction: str = field(default="mean", validator=one_of("sum", "mean", "max", "min", "first", "last"))

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, SegmentCache]:
        require_no_params(self, params)
        values, lengths = self._parts(x)
        ends = lengths.cumsum(0)
        if self.reduction in ("first", "last"):
            y, where = _picked(values, ends - lengths if self.reduction == "first" else ends - 1, lengths)
            return y, (where, None, tuple(values.shape), tuple(y.shape), kind_of(values))
        segments = segments_of(len(values), ends)
        y, more = self._over(values, segments, lengths)
        return y, (segments, more, tuple(values.shape), tuple(y.shape), kind_of(values))

    def vjp(self, params: Params, cache: SegmentCache, gy: Tensor) -> tuple[Grads, tuple[Tensor, None]]:
        where, more, shape, of, kind = cache
        gy = check_gy(self, gy, of, kind)
        if self.reduction in ("first", "last"):
            return params, (gy.new_zeros(shape[0] + 1, *shape[1:]).index_add(0, where, gy)[:-1], None)
        if self.reduction in ("max", "min"):
            return params, (_to_extremes(gy, more, where), None)
        return params, (_to_rows(gy if more is None else _divided(gy, more), where), None)

    def _over(self, x: Tensor, segments: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        """Reduce by all rows of a segment; return the rest of the cache too."""
        if self.reduction in ("max", "min"):
            y = _extreme(x, segments, lengths, self.reduction)
            return y, (x, y)
        y = _summed(in_single(x), segments, len(lengths))
        if self.reduction == "sum":
            return rounded(y, x), None
        counts = lengths.clamp_min(1)
        return rounded(y / _column(counts, y), x), counts

    def _parts(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return the rows and the lengths, as int64."""
        if not isinstance(x, tuple) or len(x) != 2 or not all(isinstance(one, Tensor) for one in x):
            raise value_error(self, "x must be a pair (x, lengths) of tensors", x)
        values, lengths = x
        if not values.is_floating_point() or values.dim() == 0:
            raise value_error(self, "the rows must be a floating tensor with an axis at least", values)
        if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise value_error(self, "the lengths must be integers with one axis", lengths)
        if is_plain(lengths) and ((lengths < 0).any() or lengths.sum() > len(values)):
            rule = f"the lengths must be at least 0, and together at most {len(values)}, the rows there are"
            raise value_error(self, rule, str(lengths.tolist()))
        return values, lengths.long()


def segments_of(rows: int, ends: Tensor) -> Tensor:
    """Return which segment each row is in: the number of those that have ended."""
    ended = torch.zeros(rows + 1, dtype=torch.int64, device=ends.device)
    return ended.index_add(0, ends, torch.ones_like(ends)).cumsum(0)[:-1]


def _picked(x: Tensor, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of x by their numbers; of an empty segment 0, with a number behind the last."""
    where = torch.where(lengths > 0, rows, x.shape[0])
    if not x.shape[0]:
        return x.new_zeros(rows.shape[0], *x.shape[1:]), where
    return torch.where(_column(lengths > 0, x), x.index_select(0, where.clamp_max(x.shape[0] - 1)), 0.0), where


def _summed(x: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sum the rows of each segment; those behind the last make a segment of their own, which is left out."""
    return x.new_zeros(count + 1, *x.shape[1:]).index_add(0, segments, x)[:-1]


def _to_rows(y: Tensor, segments: Tensor) -> Tensor:
    """Hand each row what its segment has, and those behind the last 0: the transpose of ``_summed``."""
    return torch.cat((y, y.new_zeros(1, *y.shape[1:]))).index_select(0, segments)


def _to_extremes(gy: Tensor, values: tuple[Tensor, Tensor], segments: Tensor) -> Tensor:
    """Share gy among the rows that are equal to y, by element.

    In place on its own new tensors: of 10000×64 in 500 segments mostly 0.4 ms, and 1.6 where the allocator is unlucky; with
    fresh memory at each step 0.9 to 7, by torch's ``segment_reduce`` 1.1. (A mean's way back takes 0.04.)
    """
    x, y = values
    rows = _to_rows(y, segments)
    if is_differentiated(gy, x):  # a share of an empty segment, though no row has it, has a derivative
        extreme = (x == rows).to(x.dtype)
        return _to_rows(gy / _summed(extreme, segments, y.shape[0]).clamp_min(1), segments) * extreme
    extreme = rows.eq_(x) if is_untransformed() else (x == rows).to(x.dtype)  # vmap knows no eq_
    counts = _summed(in_single(extreme), segments, y.shape[0])
    return _to_rows(rounded(gy / counts, gy), segments).mul_(extreme)


def _extreme(x: Tensor, segments: Tensor, lengths: Tensor, which: str) -> Tensor:
    """Return the largest or smallest of each segment, by element; 0 of an empty one."""
    shape, lowest = (len(lengths) + 1, *x.shape[1:]), -math.inf if which == "max" else math.inf
    at = segments.reshape(-1, *[1] * (x.dim() - 1)).expand(x.shape)
    found = x.new_full(shape, lowest).scatter_reduce(0, at, x, "amax" if which == "max" else "amin")[:-1]
    return torch.where(_column(lengths > 0, x), found, 0.0)


def _divided(gy: Tensor, counts: Tensor) -> Tensor:
    """Divide by the counts in single: half precision counts only to 256 or 2048."""
    return rounded(in_single(gy) / _column(counts, in_single(gy)), gy)


def _column(counts: Tensor, like: Tensor) -> Tensor:
    """Give numbers, one for each row, the axes of the rows; counts in their dtype."""
    shaped = counts.reshape(-1, *[1] * (like.dim() - 1))
    return shaped if counts.dtype == torch.bool else shaped.to(like.dtype)
