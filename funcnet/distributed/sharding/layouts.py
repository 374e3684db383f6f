"""Layouts: the positions of a leaf's rows on the workers, and in the flat tensors that are sent.

Worker r of n has the rows ⌈N / n⌉ r to ⌈N / n⌉ (r + 1) of N, as with ``torch.chunk``. In a message every piece has ⌈N / n⌉ rows,
padded with zeros. The pieces of several leaves are concatenated, and stacking the rows of all workers gives the whole leaves.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor


class Layout(NamedTuple):
    """A leaf that is divided along an axis."""

    shape: Size
    """The shape of the whole leaf."""
    axis: int
    workers: int
    rank: int

    @property
    def rows(self) -> int:
        """The number of rows of the longest piece."""
        return ceil(self.shape[self.axis] / self.workers)

    @property
    def length(self) -> int:
        """The number of elements of a piece in a message."""
        return self.rows * prod(self._rest)

    @property
    def _rest(self) -> list[int]:
        return [size for axis, size in enumerate(self.shape) if axis != self.axis]

    def flat(self, piece: Tensor) -> list[Tensor]:
        """Return a piece as flat tensors: its elements, and the padding."""
        own = _rows_first(piece, self.axis).reshape(-1)
        return [own] if own.numel() == self.length else [own, own.new_zeros(self.length - own.numel())]

    def whole(self, sent: Tensor) -> Tensor:
        """Return the whole leaf from the pieces of all workers, a matrix with a row for each worker."""
        rows = sent.reshape(self.workers * self.rows, *self._rest)[: self.shape[self.axis]]
        return (rows.movedim(0, self.axis) if self.axis else rows).contiguous()

    def matrix(self, whole: Tensor) -> Tensor:
        """Return a whole leaf as a matrix with a row for each worker: the inverse of ``whole``."""
        flat, count = _rows_first(whole, self.axis).reshape(-1), self.workers * self.length
        if flat.numel() < count:
            flat = torch.cat((flat, flat.new_zeros(count - flat.numel())))
        return flat.view(self.workers, self.length)

    def piece(self, flat: Tensor) -> Tensor:
        """Return this worker's piece from its row of a message: the inverse of ``flat``."""
        count = self._count()
        rows = flat[: count * prod(self._rest)].view(count, *self._rest)
        return rows.movedim(0, self.axis).contiguous() if self.axis else rows

    def cut(self, whole: Tensor) -> Tensor:
        """Return a copy of this worker's piece of a whole leaf."""
        return whole.narrow(self.axis, min(self.rank * self.rows, whole.shape[self.axis]), self._count()).clone()

    def _count(self) -> int:
        """Return the number of this worker's rows."""
        return max(0, min(self.rows, self.shape[self.axis] - self.rank * self.rows))


def _rows_first(leaf: Tensor, axis: int) -> Tensor:
    return leaf.movedim(axis, 0) if axis else leaf


def split_rows(sent: Tensor, layouts: Sequence[Layout]) -> Any:
    """Return the part of each leaf in a row, or in a matrix of rows."""
    sizes = [layout.length for layout in layouts]
    return torch.split(sent[..., : sum(sizes)], sizes, dim=-1)
