"""Segments: rows that follow one another belong together, so many to each segment, and each segment is reduced to one row.

    sum, mean     y[j] = Σ x[i] / m[j]     gx[i] = gy[j] / m[j]      i in segment j; m = 1, or for a mean their number
    first, last   y[j] = x[k]              gx[k] = gy[j]             k the first or last row of j
    max, min      y[j] = x[k]              gx[k] = gy[j]             by element, k where its largest or smallest is first

An empty segment has y = 0. Lengths have no gradient.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import one_of, wrong
from funcnet.kernels.mode import plain
from funcnet.layer import Layer, Params, frozen, no_params
from funcnet.layers.window import of_shape

Kept = tuple[Tensor, Tensor | None, tuple[int, ...], tuple[int, ...]]
"""Where the gradient goes, or whence it comes; for a mean the counts; the shapes of x and y."""


@frozen
class SegmentPool(Layer):
    """One row for each segment of x: (x, lengths), x (rows, ...) and integers (segments,), gives y (segments, ...).

    Lengths may be 0, and rows behind the last segment count for nothing. ``reduction`` is "sum", "mean", "max", "min", "first"
    or "last".

    Params   none.
    Cache    the segment of each row and for a mean the lengths, or the row of each element of y; the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` for an unknown ``reduction``, an ``x`` that is no floating tensor with rows, and lengths that are not
             integers with one axis, or negative, or more than there are rows.
    """

    reduction: str = field(default="mean", validator=one_of("sum", "mean", "max", "min", "first", "last"))

    def apply(self, params: Params, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Kept]:
        no_params(self, params)
        values, lengths = self._parts(x)
        ends = lengths.cumsum(0)
        if self.reduction in ("first", "last"):
            y, where, counts = *_picked(values, ends - lengths if self.reduction == "first" else ends - 1, lengths), None
        else:
            y, where, counts = self._over(values, self._segments(values, ends), lengths)
        return y, (where, counts, tuple(values.shape), tuple(y.shape))

    def vjp(self, params: Params, cache: Kept, gy: Tensor) -> tuple[Params, tuple[Tensor, None]]:
        where, counts, shape, of = cache
        gy = of_shape(self, gy, of)
        if self.reduction in ("first", "last"):
            return params, (gy.new_zeros(shape[0] + 1, *shape[1:]).index_add(0, where, gy)[:-1], None)
        if self.reduction in ("max", "min"):
            flat = _flat(gy)
            gx = flat.new_zeros(shape[0] + 1, flat.shape[1]).scatter_add(0, where, flat)[:-1]
            return params, (gx.reshape(shape), None)
        gy = gy if counts is None else gy / _column(counts, gy)
        return params, (torch.cat((gy, gy.new_zeros(1, *gy.shape[1:]))).index_select(0, where), None)

    def _over(self, x: Tensor, segments: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what all rows of a segment have part in, and what of it is kept."""
        if self.reduction in ("max", "min"):
            sign = 1 if self.reduction == "max" else -1
            y, where = _largest(sign * _flat(x), segments, len(lengths))
            return (sign * y).reshape(len(lengths), *x.shape[1:]), where, None
        y = x.new_zeros(len(lengths) + 1, *x.shape[1:]).index_add(0, segments, x)[:-1]
        if self.reduction == "sum":
            return y, segments, None
        counts = lengths.clamp_min(1)
        return y / _column(counts, y), segments, counts

    def _parts(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return the rows and the lengths, as int64."""
        if not isinstance(x, tuple) or len(x) != 2 or not all(isinstance(one, Tensor) for one in x):
            raise wrong(self, "x must be a pair (x, lengths) of tensors", x)
        values, lengths = x
        if not values.is_floating_point() or values.dim() == 0:
            raise wrong(self, "the rows must be a floating tensor with an axis at least", values)
        if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise wrong(self, "the lengths must be integers with one axis", lengths)
        if plain(lengths) and ((lengths < 0).any() or lengths.sum() > len(values)):
            rule = f"the lengths must be at least 0, and together at most {len(values)}, the rows there are"
            raise wrong(self, rule, str(lengths.tolist()))
        return values, lengths.long()

    def _segments(self, x: Tensor, ends: Tensor) -> Tensor:
        """Return which segment each row is in: the number of those that have ended."""
        ended = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
        return ended.index_add(0, ends, torch.ones_like(ends)).cumsum(0)[:-1]


def _picked(x: Tensor, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of x by their numbers; of an empty segment 0, with a number behind the last."""
    where = torch.where(lengths > 0, rows, len(x))
    if not len(x):
        return x.new_zeros(len(rows), *x.shape[1:]), where
    return torch.where(_column(lengths > 0, x), x.index_select(0, where.clamp_max(len(x) - 1)), 0.0), where


def _largest(x: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest of each segment, by element, and in which row it is first; NaN counts as the largest."""
    at, n = segments.unsqueeze(1).expand(x.shape), torch.arange(len(x), device=x.device).unsqueeze(1)
    top = x.new_full((count + 1, x.shape[1]), -math.inf).scatter_reduce(0, at, x, "amax")
    hit = torch.where((x == top.index_select(0, segments)) | x.isnan(), n, len(x))
    where = hit.new_full(top.shape, len(x)).scatter_reduce(0, at, hit, "amin")[:-1]
    return torch.where(where < len(x), top[:-1], 0.0), where


def _flat(x: Tensor) -> Tensor:
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _column(counts: Tensor, like: Tensor) -> Tensor:
    """Give numbers, one for each row, the axes of the rows; counts in their dtype."""
    shaped = counts.reshape(-1, *[1] * (like.dim() - 1))
    return shaped if counts.dtype == torch.bool else shaped.to(like.dtype)
