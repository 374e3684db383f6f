"""The gradients of a sharded optimizer: each worker gets the sum of its own pieces during the backward pass."""

from typing import Any

import torch
from torch import Tensor

from funcnet.contract import Cache, Grads, Params
from funcnet.distributed.replicas.buckets import AllReduce, Sent, weigh, weighed
from funcnet.distributed.replicas.whole_batch import WholeBatch
from funcnet.distributed.sharding.matrices import Matrix
from funcnet.distributed.sharding.optimizer_shards import ShardedOptimizer
from funcnet.distributed.sharding.shard_plans import Plan
from funcnet.distributed.workers import Workers, scatter_sum
from funcnet.flattening import flatten_together, unflatten
from funcnet.gradients import ValueAndGrads
from funcnet.precision import in_single, rounded
from funcnet.transforms.accumulation import Accumulated


class ShardReducer(AllReduce):
    """A reducer that returns to each worker its pieces of the sum; an empty tensor for a leaf without rows here."""

    plan: Plan
    numbers_of: list[list[int]]

    def follow(self, plan: Plan, numbers_of: list[list[int]]) -> None:
        """Set the plan of the leaves, and the numbers in params of the leaves of each place."""
        self.plan, self.numbers_of = plan, numbers_of

    def _kind(self, place: int, i: int, leaf: Tensor) -> tuple[Any, ...]:
        number = self.numbers_of[place][i]
        return *super()._kind(place, i, leaf), self.plan.cuts[number] is not None, number * self.plan.is_alone(number)

    def _started(self, leaves: list[tuple[int, int]], dtype: torch.dtype) -> Sent:
        places = tuple([self.numbers_of[place][i] for place, i in leaves])
        if self.plan.cuts[places[0]] is None:
            return super()._started(leaves, dtype)
        matrix = self.plan.matrix(places)
        if matrix.is_wasteful:
            return super()._started(leaves, dtype)
        return Sent(leaves, [matrix], scatter_sum(self.workers, self._rows(matrix, leaves, dtype)))

    def _rows(self, matrix: Matrix, leaves: list[tuple[int, int]], dtype: torch.dtype) -> Tensor:
        """Return the matrix of some leaves, and release them; the additional numbers are at the end of each row."""
        if len(leaves) == 1 and (self.numbers is None or self._sent) and matrix.cuts[0].is_even:
            return self._of_one(*leaves[0])
        numbers = None if self.numbers is None or self._sent else self.numbers.to(dtype)
        rows = matrix.of_wholes([in_single(self._leaves[place][i]) for place, i in leaves], numbers)  # type: ignore[index]
        for place, i in leaves:
            self._leaves[place][i] = None  # type: ignore[index]
        weigh(rows[:, : matrix.width], self._weight)
        return rows

    def _of_one(self, place: int, i: int) -> Tensor:
        """Return an evenly cut leaf, weighted in one pass, and release it."""
        leaf = in_single(self._leaves[place][i])  # type: ignore[index]
        self._leaves[place][i] = None  # type: ignore[index]
        return weighed(leaf, self._weight).reshape(self.workers.size, -1)

    def _put(self, leaves: list[tuple[int, int]], shapes: list[Any], flat: Tensor) -> None:
        rank = self.workers.rank
        if not isinstance(shapes[0], Matrix):
            super()._put(leaves, shapes, flat)
            cuts = [self.plan.cuts[self.numbers_of[place][i]] for place, i in leaves]
            pieces = [cut and cut.piece(self._leaves[place][i], rank) for cut, (place, i) in zip(cuts, leaves, strict=True)]  # type: ignore[index]
        else:
            pieces = shapes[0].pieces(flat, rank)
        for (place, i), piece in zip(leaves, pieces, strict=True):
            like = self._likes[place][i]
            self._leaves[place][i] = like.new_empty((0, *like.shape[1:])) if piece is None else rounded(piece, like)  # type: ignore[index]


class ShardingBatch(WholeBatch):
    """The value of the whole batch, and this worker's pieces of the gradient."""

    reducer: ShardReducer

    def __init__(self, one: ValueAndGrads | Accumulated, workers: Workers, opt: ShardedOptimizer) -> None:
        super().__init__(one, workers, averages=True)
        self.opt, self.reducer = opt, ShardReducer(workers)
        self._plan: Plan | None = None

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        plan = self.opt.plan(params)
        if plan is not self._plan:
            numbers = unflatten(plan.whole, iter(range(len(plan.cuts))))
            entries = self.turns.places.entries(numbers)
            self.reducer.follow(plan, [flatten_together(entry)[0] for entry in entries])
            self._plan = plan
        return super().scaled(params, x, target, rng, scale)
