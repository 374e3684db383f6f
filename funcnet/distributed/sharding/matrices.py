"""Matrices: leaves in a message, which is a tensor of one dtype with a row for each worker.

    row r    worker r's pieces of all leaves, one after the other, and zeros up to the length of the longest row

Summing row r over all workers gives the gradient that worker r needs, and stacking the rows of all workers gives whole leaves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.distributed.sharding.cutting import Cut
from funcnet.kernels.optim import write_each

WASTE = 2
"""The largest useful ratio of a matrix's elements to those of its leaves; above it, sums for all workers are cheaper."""


class Matrix:
    """The positions of some leaves in a matrix with ``size`` rows."""

    def __init__(self, cuts: Sequence[Cut], size: int) -> None:
        self.cuts, self.size = cuts, size
        self.lengths = [[cut.numel(rank) for cut in cuts] for rank in range(size)]
        self.numbers = sum(map(sum, self.lengths))
        self.width = max(map(sum, self.lengths), default=0)

    @property
    def is_wasteful(self) -> bool:
        """Whether the matrix is mostly zeros, because one worker has most of the leaves."""
        return self.width * self.size > WASTE * self.numbers

    def of_wholes(self, wholes: Sequence[Tensor], numbers: Tensor | None = None) -> Tensor:
        """Return the matrix of whole leaves, with ``numbers`` at the end of each row."""
        more = [] if numbers is None else [numbers]
        rows = [[cut.piece(whole, rank) for cut, whole in zip(self.cuts, wholes, strict=True)] for rank in range(self.size)]
        parts = [part for rank, row in enumerate(rows) for part in (*self._filled(row, rank, wholes[0]), *more)]
        return torch.cat(parts).view(self.size, -1)

    def of_pieces(self, pieces: Sequence[Tensor | None], rank: int, like: Tensor) -> Tensor:
        """Return the row with a worker's pieces; ``like`` has their dtype and device."""
        return torch.cat(self._filled(pieces, rank, like))

    def _filled(self, pieces: Sequence[Tensor | None], rank: int, like: Tensor) -> list[Tensor]:
        flat = [piece.reshape(-1) for piece in pieces if piece is not None]
        return [*flat, like.new_zeros(self.width - sum(self.lengths[rank]))]

    def pieces(self, row: Tensor, rank: int) -> list[Tensor | None]:
        """Return the pieces in a worker's row, as views, or ``None`` for leaves without a piece."""
        parts = torch.split(row[: sum(self.lengths[rank])], self.lengths[rank])
        rows = zip(self.cuts, parts, strict=True)
        return [part.view(cut.shape(rank)) if cut.rows[rank][1] else None for cut, part in rows]

    def wholes(self, matrix: Tensor) -> list[Tensor]:
        """Return the whole leaves of a matrix, copied."""
        return [_joined(cut, column) for cut, column in self._columns(matrix)]

    def write(self, matrix: Tensor, wholes: Sequence[Tensor], *, but: int | None = None) -> None:
        """Write a matrix to whole leaves, except the row of one worker."""
        others = [(rank, self.pieces(row, rank)) for rank, row in enumerate(matrix) if rank != but]
        rows = [(rank, *one) for rank, pieces in others for one in zip(self.cuts, wholes, pieces, strict=True)]
        pairs = [(cut.piece(whole, rank), new) for rank, cut, whole, new in rows if new is not None]
        if pairs:
            write_each([old for old, _ in pairs], [new for _, new in pairs])  # type: ignore[misc]

    def _columns(self, matrix: Tensor) -> list[tuple[Cut, list[Tensor | None]]]:
        """List the leaves with the pieces of all workers."""
        rows = [self.pieces(row, rank) for rank, row in enumerate(matrix)]
        return [(cut, [row[i] for row in rows]) for i, cut in enumerate(self.cuts)]


def _joined(cut: Cut, column: Sequence[Tensor | None]) -> Tensor:
    """Return a leaf from the pieces of all workers, as a copy."""
    there = [one for one in column if one is not None]
    return torch.cat(there) if cut.leaf.dim() else there[0].clone()
