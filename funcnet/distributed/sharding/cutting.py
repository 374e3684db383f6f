"""Cutting: the rows of each leaf that each worker holds.

    "elements"   worker r of n has rows ⌈N / n⌉ r to ⌈N / n⌉ (r + 1) of N, as with ``torch.chunk`` and DTensor's ``Shard(0)``
    "leaves"     one worker has all rows: from the largest leaf down, each is assigned to the worker that has least so far

A piece has all axes of its leaf, and a worker without rows of a leaf has ``None``. Leaves that optimizers do not update, such as
counters, are not cut: every worker has them, and its optimizer gets ``None``.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Any, NamedTuple

from torch import Tensor

from funcnet.distributed.sharding.leaf_scopes import ELEMENTS
from funcnet.kernels.aliasing import without_graph
from funcnet.optim.columns import is_dense

Rows = tuple[int, int]
"""The first row of a piece, and the number of rows. A leaf without axes is one row."""


class Cut(NamedTuple):
    """A leaf, and the rows of each worker."""

    leaf: Tensor
    """A tensor with the shape, dtype and device of the leaf."""
    rows: tuple[Rows, ...]
    """The rows of each worker, by rank."""

    def piece(self, whole: Tensor, rank: int) -> Tensor | None:
        """Return the rows of a worker as a detached view, or ``None`` without rows."""
        first, count = self.rows[rank]
        if not count:
            return None
        whole = without_graph(whole)
        return whole if count == row_count(whole) else whole.narrow(0, first, count)

    def shape(self, rank: int) -> tuple[int, ...]:
        """Return the shape of a worker's piece."""
        shape = self.leaf.shape
        return (min(self.rows[rank][1], shape[0]), *shape[1:]) if shape else ()

    @property
    def is_even(self) -> bool:
        """Whether all workers have the same number of rows; the leaf itself is then a matrix with a row for each worker."""
        return len({count for _, count in self.rows}) == 1

    def numel(self, rank: int) -> int:
        """Return the number of elements of a worker's piece."""
        return prod(self.shape(rank)) if self.rows[rank][1] else 0


def cuts(leaves: Sequence[Any], scopes: Sequence[str], size: int) -> list[Cut | None]:
    """Return the cut of each leaf, or ``None`` for leaves that are not cut."""
    found: list[Cut | None] = [None] * len(leaves)
    whole: list[int] = []
    for i, (leaf, scope) in enumerate(zip(leaves, scopes, strict=True)):
        if is_dense(leaf) and scope == ELEMENTS and leaf.dim() and leaf.numel():
            found[i] = Cut(leaf, _chunks(leaf.shape[0], size))
        elif is_dense(leaf):
            whole.append(i)
    loads = [sum([cut.numel(rank) for cut in found if cut]) for rank in range(size)]
    for i in sorted(whole, key=lambda i: -leaves[i].numel()):
        owner = loads.index(min(loads))
        loads[owner] += leaves[i].numel()
        found[i] = Cut(leaves[i], tuple([(0, row_count(leaves[i])) if rank == owner else (0, 0) for rank in range(size)]))
    return found


def row_count(leaf: Tensor) -> int:
    """Return the number of rows of a leaf; 1 for a leaf without axes and for an empty leaf, which also belongs to a worker."""
    return max(1, leaf.shape[0]) if leaf.dim() else 1


def _chunks(n: int, size: int) -> tuple[Rows, ...]:
    most = ceil(n / size)
    firsts = [min(n, most * rank) for rank in range(size + 1)]
    return tuple([(first, end - first) for first, end in pairwise(firsts)])
