"""Running statistics of several workers: their mean, weighted by the number of rows, which makes them equal on all workers.

Each worker updates its statistics with its own shard, and the results are averaged in float64. Counters are equal on all workers
with rows, and stay whole numbers.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.contract import Layer, Params, meta_key
from funcnet.distributed.replicas.sync_norms import SyncBatchNorm
from funcnet.distributed.workers import Pending, Workers, sum_over
from funcnet.flattening import flatten_together, unflatten
from funcnet.losses.loss import rows_of
from funcnet.walking import map_layers


class Averaging:
    """The statistics that a net's ``update_stats`` changes, averaged over workers."""

    def __init__(self, net: Layer, workers: Workers) -> None:
        self.net, self.workers = net, workers
        self._moving: list[int] | None = None

    def learn(self, moving: list[int]) -> None:
        """Set the leaves of params that change; otherwise the first step determines them."""
        self._moving = moving

    def started(self, net: Layer, params: Params, cache: Any, x: Any) -> tuple[Params, Pending | None]:
        """Return params with statistics updated with this worker's shard, and start their sum, weighted by its number of rows."""
        moved, rows = net.update_stats(params, cache), rows_of(x)
        leaves = self._chosen(moved, params, x)
        if not leaves:
            return moved, None
        flat = _flat(leaves) * rows
        return moved, sum_over(self.workers, torch.cat((flat if rows else torch.zeros_like(flat), flat.new_tensor([rows]))))

    def _chosen(self, moved: Params, params: Params, x: Any) -> list[Tensor]:
        if self._moving is None:
            self._moving = _moving(params, moved) if rows_of(x) else moving_on_meta(self.net, params, x)
        leaves = flatten_together(moved)[0]
        return [leaves[i] for i in self._moving]

    def averaged(self, moved: Params, sums: Pending) -> Params:
        """Return the params with the statistics of all workers; without any rows they do not change."""
        found, leaves = sums.wait(), flatten_together(moved)[0]
        chosen = [leaves[i] for i in self._moving or ()]
        means = torch.where(found[-1] == 0, _flat(chosen), found[:-1] / found[-1])
        for i, old, new in zip(self._moving or (), chosen, torch.split(means, [leaf.numel() for leaf in chosen]), strict=True):
            leaves[i] = (new if old.is_floating_point() else new.round()).to(old.dtype).view(old.shape)
        made: Params = unflatten(moved, iter(leaves))
        return made

    def put(self, params: Params, averaged: Params) -> Params:
        """Return params with the statistics of ``averaged``."""
        leaves, found = flatten_together(params, averaged)
        for i in self._moving or ():
            leaves[i] = found[i]
        made: Params = unflatten(params, iter(leaves))
        return made


def _flat(leaves: list[Tensor]) -> Tensor:
    return torch.cat([leaf.detach().reshape(-1).double() for leaf in leaves])


def _moving(before: Params, after: Params) -> list[int]:
    return [i for i, (old, new) in enumerate(zip(*flatten_together(before, after), strict=True)) if new is not old]


def moving_on_meta(net: Layer, params: Params, x: Any) -> list[int]:
    """Return the leaves of params that ``update_stats`` changes, for a worker whose first shard has no rows."""
    there = tree.to(params, "meta")
    rows = tree.map(lambda leaf: leaf.new_empty((2, *leaf.shape[1:]), device="meta"), x)
    return _moving(there, net.update_stats(there, net.apply(there, rows, meta_key(net))[1]))


def for_no_rows(net: Layer) -> Layer:
    """Return the net for a shard without rows, whose norms use the running statistics.

    Synchronized norms stay, because the other workers wait for this one.
    """
    return map_layers(lambda layer: layer.inference() if _needs_rows(layer) else layer, net)


def _needs_rows(layer: Layer) -> bool:
    return layer.batch_dependent and not isinstance(layer, (Combinator, SyncBatchNorm))
