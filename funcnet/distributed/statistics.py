"""Running statistics of several workers: their mean, weighted by rows, so that they agree everywhere.

Each worker moves its statistics by its own shard, and the moved ones are averaged in float64. Counters are equal on all workers
that have rows, and stay whole.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.contract import Layer, Params, meta_key
from funcnet.flattening import flatten_together, unflatten
from funcnet.losses.parts import Weight
from funcnet.walking import map_layers


class Averaging:
    """The statistics of a net that its ``update_stats`` moves, averaged over workers."""

    def __init__(self, net: Layer) -> None:
        self.net = net
        self._moving: list[int] | None = None

    def moved(self, net: Layer, params: Params, cache: Any, share: Weight, x: Any) -> tuple[Params, Tensor]:
        """Return params with statistics moved by this worker's shard, and those statistics times its share, in a row."""
        moved = net.update_stats(params, cache)
        leaves = self._chosen(moved, params, x)
        flat = torch.cat([leaf.detach().reshape(-1).double() for leaf in leaves]) if leaves else torch.zeros(0).double()
        return moved, torch.zeros_like(flat) if not isinstance(share, Tensor) and share == 0 else flat * share

    def _chosen(self, moved: Params, params: Params, x: Any) -> list[Tensor]:
        if self._moving is None:
            self._moving = moving(self.net, params, x)
        leaves = flatten_together(moved)[0]
        return [leaves[i] for i in self._moving]

    def averaged(self, moved: Params, means: Tensor) -> Params:
        """Return the params with the statistics of all workers."""
        leaves = flatten_together(moved)[0]
        chosen = [leaves[i] for i in self._moving or ()]
        for i, old, new in zip(self._moving or (), chosen, torch.split(means, [leaf.numel() for leaf in chosen]), strict=True):
            leaves[i] = (new if old.is_floating_point() else new.round()).to(old.dtype).view(old.shape)
        return unflatten(moved, iter(leaves))


def moving(net: Layer, params: Params, x: Any) -> list[int]:
    """Return which leaves of params ``update_stats`` moves: found on the meta device, for a shard without rows too."""
    there = tree.to(params, "meta")
    rows = tree.map(lambda leaf: leaf.new_empty((2, *leaf.shape[1:]), device="meta"), x)
    moved = net.update_stats(there, net.apply(there, rows, meta_key(net))[1])
    before, after = flatten_together(there, moved)
    return [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new is not old]


def for_no_rows(net: Layer) -> Layer:
    """Return the net for a shard without rows, which has no statistics of its own: its norms go by the running ones."""
    return map_layers(lambda layer: layer.inference() if _needs_rows(layer) else layer, net)


def _needs_rows(layer: Layer) -> bool:
    return layer.batch_dependent and not isinstance(layer, Combinator)
