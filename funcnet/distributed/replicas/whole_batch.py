"""The whole batch: the value and the gradient over all workers' shards."""

from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.distributed.replicas.buckets import AllReduce
from funcnet.distributed.replicas.shares import (
    Share,
    Shares,
    number,
    or_one,
    sum_of_values,
    times,
    value_and_gy,
    value_and_scaled_gy,
    value_of,
    weighed_gy,
    weights_of,
)
from funcnet.distributed.replicas.statistics import Averaging, for_no_rows
from funcnet.distributed.replicas.sync_norms import has_sync_norms
from funcnet.distributed.replicas.turns import Turns
from funcnet.distributed.workers import Pending, Workers
from funcnet.gradients import ValueAndGrads
from funcnet.losses.loss import rows_of
from funcnet.precision import HALF, in_single
from funcnet.transforms.accumulation import Accumulated, keys_of
from funcnet.value import parts


class WholeBatch:
    """The loss of the whole batch and its gradient, from the shards of all workers."""

    def __init__(self, one: ValueAndGrads | Accumulated, workers: Workers, *, averages: bool) -> None:
        self.one, self.workers = one, workers
        step = one.step if isinstance(one, Accumulated) else one
        self.net, self.loss, self.turns = step.net, step.loss, Turns(step.net)
        self.reducer = AllReduce(workers)
        self._averaging = Averaging(step.net, workers) if averages and step.net.has_running_stats else None
        self._stochastic, self._is_synced = step.net.stochastic, has_sync_norms(step.net)
        self._weights_first = self._is_synced or step.net.surrogate
        self._casts = any([_casts(part) for part in parts(step.net)])  # noqa: C419
        self._without_rows: tuple[Layer, Turns] | None = None

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        """Return the value, the gradient of ``scale`` times it (if there is a scale), and the argument for ``update_stats``."""
        by_shares = isinstance(self.one, Accumulated) or self.loss.part_count > 1 or self._weights_first
        whole = self._by_shares if by_shares else self._by_weight
        return whole(params, x, target, rng, scale)

    def _by_weight(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        """Multiply value and gradient by the weight of the shard, and divide the sums by the sum of weights.

        Usually the gradient of y is multiplied, which is less work; in half precision the gradients of params are.

        Value and weight are sent with the gradients, so that the step of a small net needs only one collective.
        """
        net, turns = self._of_shard(x)
        y, cache = net.apply(params, x, *self._keys(rng, 1))
        value, gy = value_and_scaled_gy(self.loss, y, target, scale)
        del y
        w = None if self.loss.reduction == "sum" else number(weights_of(self.loss, x, target)[0])
        one = 1.0 if w is None else w
        numbers = torch.stack([times(value.detach(), one), torch.as_tensor(one, dtype=torch.float64, device=value.device)])
        moved, statistics = self._started(net, params, cache, x)
        gy, rest = (gy, w) if w is None or self._casts else weighed_gy(gy, w, params)
        grads = turns.grads(self.reducer, params, cache, gy, weight=rest, numbers=numbers)
        total, weight = self.reducer.numbers  # type: ignore[misc]  # their sums
        value = (total if w is None else total / or_one(weight)).to(value.dtype)
        return value, grads, self._averaged(moved, statistics, cache)

    def _by_shares(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        """Sum the weights first, because they differ between parts of a loss and micro-batches.

        Synchronized norms mix the workers' gradients in the backward pass, so gradients must be weighted before. Clipping also
        needs the gradients of the whole batch.
        """
        batches = self._micro_batches(x, target)
        started, keys = Shares(self.loss, batches, self.workers, _device(params)), self._keys(rng, len(batches))
        net, turns = self._of_shard(x)
        shares: list[Share] = []
        values: list[list[Tensor]] = []
        earlier: Params | None = None
        for (x_i, target_i), key in zip(batches, keys, strict=True):
            y, cache = net.apply(params, x_i, key)
            shares = shares or started.of_parts()
            value, gy = value_and_gy(self.loss, y, target_i, shares[len(values)], scale)
            del y
            values.append(value)
            if len(values) < len(batches):
                grads = tree.map(in_single, net.grads(params, cache, gy))
                earlier = grads if earlier is None else tree.add(earlier, grads)
                cache = gy = None  # keep only one micro-batch's in memory
        sums = sum_of_values(values, self.workers)
        moved, statistics = self._started(net, params, cache, x)
        grads = turns.grads(self.reducer, params, cache, gy, earlier=earlier)
        return value_of(self.loss, sums.wait(), value), grads, self._averaged(moved, statistics, cache)

    def _micro_batches(self, x: Any, target: Any) -> list[tuple[Any, Any]]:
        """Cut the shard into micro-batches; if norms need all workers at the same time, into as many as the others."""
        exactly = self._is_synced
        return self.one.micro_batches(x, target, exactly=exactly) if isinstance(self.one, Accumulated) else [(x, target)]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the statistics of all workers; an optimizer can have changed the other leaves since ``scaled``."""
        return params if self._averaging is None else self._averaging.put(params, cache)

    def _keys(self, rng: Any, count: int) -> list[Any]:
        """Return the keys of this worker's micro-batches: no two workers have the same noise."""
        if rng is None or not self._stochastic:
            return [rng] * count
        own = random.fold_in(rng, self.workers.rank)
        return keys_of(own, count) if isinstance(self.one, Accumulated) else [own]

    def _of_shard(self, x: Any) -> tuple[Layer, Turns]:
        """Return the net for a shard, and its turns."""
        if rows_of(x) or not self.net.batch_dependent:
            return self.net, self.turns
        if self._without_rows is None:
            net = for_no_rows(self.net)
            self._without_rows = net, Turns(net)
        return self._without_rows

    def _started(self, net: Layer, params: Params, cache: Cache, x: Any) -> tuple[Params, Pending | None]:
        """Update the statistics with this shard, and start their mean over workers."""
        if self._averaging is None:
            return params, None
        return self._averaging.started(net, params, cache, x)

    def _averaged(self, moved: Params, statistics: Pending | None, cache: Cache) -> Params | Cache:
        """Return the argument for ``update_stats``: the params with mean statistics, or the cache if there are none."""
        if self._averaging is None:
            return cache
        return moved if statistics is None else self._averaging.averaged(moved, statistics)


def _casts(part: Any) -> bool:
    """Return whether a part of a net computes in half precision, whatever the dtype of its params."""
    return isinstance(part, MixedPrecision) or (isinstance(part, Layer) and part.output_dtype in HALF)


def _device(params: Params) -> torch.device:
    """Return the device for small sums: that of the params."""
    return next((leaf.device for leaf in tree.leaves(params) if isinstance(leaf, Tensor)), torch.device("cpu"))
