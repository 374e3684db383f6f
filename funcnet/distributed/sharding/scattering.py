"""Scattering: the gradients of several layers in one flat tensor; each worker gets the sum of its own pieces."""

from typing import Any

import torch
from torch import Tensor

from funcnet.distributed.replicas.buckets import AllReduce, Sent, weigh
from funcnet.distributed.sharding.layouts import Layout, split_rows
from funcnet.distributed.workers import Workers, scatter_sum
from funcnet.precision import in_single, rounded


class ReduceScatter(AllReduce):
    """A reducer that returns to every worker its pieces of the sum, and the whole sum for undivided leaves.

    Args:
        workers: The workers.
        buckets: The places whose gradients are sent together, the last layers first.
        layouts: The layouts of the leaves of each place, ``None`` for an undivided leaf.
    """

    def __init__(self, workers: Workers, buckets: list[list[int]], layouts: list[list[Layout | None]]) -> None:
        super().__init__(workers)
        self._layouts = layouts
        self.arrange(buckets)

    def _kind(self, place: int, i: int, leaf: Tensor) -> tuple[Any, ...]:
        return *super()._kind(place, i, leaf), self._layouts[place][i] is not None

    def _started(self, leaves: list[tuple[int, int]], dtype: torch.dtype) -> Sent:
        layouts = [self._layouts[place][i] for place, i in leaves]
        if None in layouts:
            return super()._started(leaves, dtype)
        return Sent(leaves, layouts, scatter_sum(self.workers, self._rows(leaves, layouts, dtype)))

    def _rows(self, leaves: list[tuple[int, int]], layouts: list[Any], dtype: torch.dtype) -> Tensor:
        """Copy some leaves to a matrix with a row for each worker, and release them."""
        pairs = zip(leaves, layouts, strict=True)
        parts = [layout.matrix(in_single(self._leaves[place][i])) for (place, i), layout in pairs]  # type: ignore[index]
        for place, i in leaves:
            self._leaves[place][i] = None  # type: ignore[index]
        numbers = [] if self.numbers is None or self._sent else [self.numbers.to(dtype).expand(self.workers.size, -1)]
        rows = torch.cat([*parts, *numbers], dim=1)
        weigh(rows[:, : -numbers[0].shape[1]] if numbers else rows, self._weight)
        return rows

    def _put(self, leaves: list[tuple[int, int]], shapes: list[Any], flat: Tensor) -> None:
        if not isinstance(shapes[0], Layout):
            super()._put(leaves, shapes, flat)
            return
        for (place, i), layout, piece in zip(leaves, shapes, split_rows(flat, shapes), strict=True):
            self._leaves[place][i] = rounded(layout.piece(piece), self._likes[place][i])  # type: ignore[index]
