"""The memory of L-BFGS: pairs of steps and changes of the gradient, from which a direction is computed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.optim import narrowed, plus, read
from funcnet.kernels.tracing import can_look_at

_LEAST = 1e-10
"""The smallest curvature y s of a kept pair."""


class Pairs:
    """Pairs of a step s and the change y of the gradient along it, the oldest first, and the scale of the initial H.

    In eager mode it contains the kept pairs; in traced code always ``size`` pairs, the first of which can be zeros.
    """

    def __init__(self, size: int, ys: Tensor, ss: Tensor, count: Any, scale: Any) -> None:
        self.size, self.scale = size, scale
        self.is_known = can_look_at(ys)
        first = size - int(count) if self.is_known else 0
        self.ys, self.ss = ([row.clone() for row in rows.unbind()[first:]] for rows in (ys, ss))
        self.ro = [_inverse(read(y.dot(s))) for y, s in zip(self.ys, self.ss, strict=True)]
        self.count = count

    def add(self, y: Tensor, s: Tensor) -> None:
        """Add a pair if its curvature is positive; a full memory drops the oldest."""
        curvature = read(y.dot(s))
        fits = curvature > _LEAST
        if self.is_known and not fits:
            return
        before, scale = (self.ys, self.ss, self.ro, self.count), self.scale
        drop = 1 if len(self.ys) == self.size else 0
        self.ys, self.ss = [*self.ys[drop:], y], [*self.ss[drop:], s]
        self.ro = [*self.ro[drop:], _inverse(curvature)]
        self.scale = curvature / read(y.dot(y)) if self.is_known else narrowed(curvature, y) / torch.where(fits, y.dot(y), 1.0)
        more = self.count + 1 if self.is_known else self.count + torch.ones_like(curvature)
        self.count = min(more, self.size) if self.is_known else more.clamp(max=self.size)
        if not self.is_known:
            self._choose(fits, *before, scale)

    def _choose(self, fits: Tensor, ys: list[Tensor], ss: list[Tensor], ro: list[Any], count: Any, scale: Any) -> None:
        """Restore the previous memory where the new pair does not fit."""
        pairs = ((self.ys, ys), (self.ss, ss), (self.ro, ro), ([self.count, self.scale], [count, scale]))
        self.ys, self.ss, self.ro, (self.count, self.scale) = (
            [torch.where(fits, x, y) for x, y in zip(new, old, strict=True)] for new, old in pairs
        )

    def direction(self, g: Tensor) -> Tensor:
        """Return minus the inverse Hessian times g, with two loops over the pairs."""
        q, shares = -g, []
        for y, s, ro in zip(reversed(self.ys), reversed(self.ss), reversed(self.ro), strict=True):
            shares.append(read(s.dot(q)) * ro)
            q = plus(q, y, -shares[-1])
        q = q * narrowed(self.scale, q)
        for y, s, ro, share in zip(self.ys, self.ss, self.ro, reversed(shares), strict=True):
            q = plus(q, s, share - read(y.dot(q)) * ro)
        return q

    def stacks(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and s of all pairs, stacked, with leading zeros for missing ones."""
        empty = [torch.zeros_like(like)] * (self.size - len(self.ys))
        return torch.stack([*empty, *self.ys]), torch.stack([*empty, *self.ss])


def _inverse(curvature: Any) -> Any:
    """Return 1 / y s, or 0 for a pair without curvature, which then has no effect."""
    if not isinstance(curvature, Tensor):
        return 1 / curvature if curvature > _LEAST else 0.0
    fits = curvature > _LEAST
    return torch.where(fits, 1 / torch.where(fits, curvature, 1.0), 0.0)


def flat(xs: Sequence[Tensor], rows: int | None = None) -> Tensor:
    """Join tensors into one vector, or stacks of ``rows`` rows into one matrix."""
    if rows is None:
        return torch.cat([x.reshape(-1) for x in xs])
    return torch.cat([x.reshape(rows, -1) for x in xs], 1)


def split_like(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Split a vector, or the rows of a matrix, into tensors with the shapes of others."""
    parts = torch.split(vector, [p.numel() for p in like], -1)
    return [part.reshape((*vector.shape[:-1], *p.shape)).contiguous() for part, p in zip(parts, like, strict=True)]
