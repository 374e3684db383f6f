"""Gathering: each layer gets its whole params in turn, in the forward and in the backward pass, and then releases them.

Each layer with params is replaced with a wrapper. The params of a few layers, a group, are gathered in one flat tensor. One group
is in memory while the next is being gathered, in the order of the previous step.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.distributed.replicas.turns import Reporting, Turns
from funcnet.distributed.sharding.layouts import Layout, split_rows
from funcnet.distributed.workers import Pending, Workers, gather_rows
from funcnet.flattening import flatten_together, unflatten
from funcnet.places import OpenCast, is_open
from funcnet.stand_ins import stand_in_for

Leaves = list[Any]


class Gathering(Reporting):
    """A layer that computes with its whole params, whichever pieces it gets."""

    dtypes: tuple[torch.dtype, ...]
    """The dtypes of the casts around the layer, outermost first."""
    turns: "GatheringTurns"

    @property
    def invertible(self) -> bool:
        return self.original.invertible

    @property
    def has_running_stats(self) -> bool:
        """Always true: for a shard without rows batch norm updates nothing, but must return whole statistics."""
        return True

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.apply(self._whole(params), x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.original(self._whole(params), x, rng)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return super().vjp(self._whole(params), cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        gparams: Grads = super().grads(self._whole(params), cache, gy)
        return gparams

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.original.input_grad(self._whole(params), cache, gy)

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        return self.original.inverse(self._whole(params), y, rng)

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.restore(self._whole(params), y, rng)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return updated whole statistics, and the pieces of all other leaves."""
        return self.turns.moved(self, params, cache)

    def _whole(self, params: Params) -> Params:
        return self.turns.whole(self.place, params)


class Groups:
    """The places that are gathered together, and the division of their leaves.

    Args:
        groups: The places of each group.
        layouts: The layouts of the leaves of each place, ``None`` for an undivided leaf.
        moving: The numbers of the leaves that are running statistics, for each place with any.
    """

    def __init__(self, groups: list[list[int]], layouts: list[list[Layout | None]], moving: dict[int, list[int]]) -> None:
        self.groups, self.layouts, self.moving = groups, layouts, moving
        self.group_of = {place: i for i, group in enumerate(groups) for place in group}
        self.order = Order()


class Order:
    """The order in which groups are expected: that of the previous step, which is the same on all workers."""

    def __init__(self) -> None:
        self._before: list[int] = []
        self.begin()

    def begin(self) -> None:
        """Start a step."""
        self._now: list[int] = []
        self._is_as_before = True

    def next_after(self, group: int) -> int | None:
        """Record that a group is needed now, and return the next expected group."""
        i = len(self._now)
        self._now.append(group)
        self._is_as_before = self._is_as_before and i < len(self._before) and self._before[i] == group
        return self._before[i + 1] if self._is_as_before and i + 1 < len(self._before) else None

    def end(self) -> None:
        """Remember the order of this step."""
        self._before = self._now


class Gather:
    """The whole params of some places while they are being gathered, with one collective per dtype and device."""

    def __init__(self, workers: Workers, entries: dict[int, Params], layouts: list[list[Layout | None]]) -> None:
        self._entries = entries
        self._leaves: dict[int, Leaves] = {place: flatten_together(entry)[0] for place, entry in entries.items()}
        divided: dict[Any, list[tuple[int, int, Layout]]] = {}
        for place, leaves in self._leaves.items():
            for i, (leaf, layout) in enumerate(zip(leaves, layouts[place], strict=True)):
                if layout is not None:
                    divided.setdefault((leaf.dtype, leaf.device), []).append((place, i, layout))
        self._sent = [(leaves, self._started(workers, leaves)) for leaves in divided.values()]

    def _started(self, workers: Workers, leaves: list[tuple[int, int, Layout]]) -> Pending:
        flats = [part for place, i, layout in leaves for part in layout.flat(self._leaves[place][i])]
        return gather_rows(workers, flats[0] if len(flats) == 1 else torch.cat(flats))

    def wait(self) -> dict[int, Params]:
        """Return the whole params by place."""
        for leaves, pending in self._sent:
            parts = split_rows(pending.wait(), [layout for _, _, layout in leaves])
            for (place, i, layout), part in zip(leaves, parts, strict=True):
                self._leaves[place][i] = layout.whole(part)
        return {place: unflatten(entry, iter(self._leaves[place])) for place, entry in self._entries.items()}


class GatheringTurns(Turns):
    """The forward and the backward pass of a net whose params are divided over workers."""

    def __init__(self, net: Layer, workers: Workers, groups: Groups) -> None:
        super().__init__(net)
        self._workers, self._groups = workers, groups
        self._reports, self._statistics = False, dict[int, Params]()

    def _with_turns(self, layer: Layer, dtypes: tuple[torch.dtype, ...] = ()) -> Layer:
        if is_open(layer):
            return layer.with_children({name: self._with_turns(child, dtypes) for name, child in layer.children().items()})
        if type(layer) is MixedPrecision:
            return OpenCast(self._with_turns(layer.layer, (*dtypes, layer.dtype)), layer.dtype)
        if not layer.trainable and layer.param_shapes() == {}:
            return layer
        return stand_in_for(layer, Gathering, place=-1, turns=self, dtypes=dtypes)

    def begin(self, params: Params) -> None:
        """Start a step with the given pieces of params."""
        self._pieces = self.places.entries(params)
        self._current, self._held = -1, dict[int, Params]()
        self._ahead: tuple[int, Gather] | None = None
        self._groups.order.begin()

    def end(self) -> None:
        """End a step and release the last params."""
        self._groups.order.end()
        self._current, self._held, self._pieces, self._ahead, self._statistics = -1, {}, [], None, {}

    def whole(self, place: int, params: Params) -> Params:
        """Return the whole params of a place; ``params`` itself if there is nothing to gather."""
        group = self._groups.group_of.get(place)
        if group is None:
            return params
        if group != self._current:
            self._turn_to(group)
        return self._held[place]

    def _turn_to(self, group: int) -> None:
        """Replace the params of one group with those of another, and start gathering the next."""
        self._held = {}
        gathered = self._ahead[1] if self._ahead is not None and self._ahead[0] == group else self._gather(group)
        self._ahead = None
        self._current, self._held = group, gathered.wait()
        del gathered
        after = self._groups.order.next_after(group)
        self._ahead = None if after is None or after == group else (after, self._gather(after))

    def _gather(self, group: int) -> Gather:
        entries = {place: self._cast(place) for place in self._groups.groups[group]}
        return Gather(self._workers, entries, self._groups.layouts)

    def _cast(self, place: int) -> Params:
        """Return the pieces of a place in the dtype of its layer's computation; half precision halves the messages."""
        entry, layer = self._pieces[place], self.places.layers[place]
        for dtype in layer.dtypes if isinstance(layer, Gathering) else ():
            entry = tree.cast(entry, dtype)
        made: Params = entry
        return made

    def take(self, place: int, gradient: Params) -> Params:
        return super().take(place, gradient) if self._reports and self.places.layers[place].trainable else gradient

    def gather_statistics(self) -> None:
        """Gather the params of all layers with running statistics, for ``update_stats``."""
        entries = {place: self._pieces[place] for place in self._groups.moving}
        self._statistics = Gather(self._workers, entries, self._groups.layouts).wait() if entries else {}

    def moved(self, layer: Gathering, params: Params, cache: Cache) -> Params:
        """Return whole statistics updated with this worker's cache, in the dtypes of ``params``, and the pieces of the rest."""
        moving = self._groups.moving.get(layer.place)
        if moving is None:
            return params
        given, whole = flatten_together(params, self._statistics[layer.place])
        wide = [w.to(p.dtype) if isinstance(w, Tensor) else w for p, w in zip(given, whole, strict=True)]
        found = flatten_together(layer.original.update_stats(unflatten(params, iter(wide)), cache))[0]
        made: Params = unflatten(params, iter([found[i] if i in moving else p for i, p in enumerate(given)]))
        return made

    def grads(self, *arguments: Any, **more: Any) -> Grads:
        """Return the gradient on all workers, as ``Turns`` does; outside this call layers return their own whole gradients."""
        self._reports = True
        try:
            return super().grads(*arguments, **more)
        finally:
            self._reports = False
