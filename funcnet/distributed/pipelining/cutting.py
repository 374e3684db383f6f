"""Cutting: the stages of a serial net, and the part of a tree like params that each stage holds.

A tree that belongs to a stage has the structure of the whole tree, with ``None`` for leaves that the stage does not hold. Paths,
and the numbers of layers in keys and errors, are therefore those of the whole net.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from funcnet import tree
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.combinators.sequential import Serial
from funcnet.combinators.sharing import Tied
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, is_whole, value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.naming import listed
from funcnet.value import frozen


@frozen
class Elsewhere(Layer):
    """A layer that another stage computes; here x and gy pass through unchanged."""

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return x, ()

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return params, gy


class CutNet:
    """A net cut into stages: a serial, also within ``tied`` and ``cast``."""

    def __init__(self, who: str, net: Layer, cuts: Sequence[int | str]) -> None:
        self.who = who
        self.ties: list[Tied] = []
        self.dtype: torch.dtype | None = None
        self.serial = self._unwrapped(who, net, net)
        self.names = [*self.serial.children()]
        starts = _starts(who, self.names, cuts)
        self.ranges = [*pairwise([0, *starts, len(self.names)])]
        self.shared = self._shared()

    def _unwrapped(self, who: str, net: Layer, within: Layer) -> Serial:
        """Return the serial within the wrappers of a net, and store the wrappers."""
        if isinstance(within, Tied):
            self.ties.append(within)
        elif isinstance(within, MixedPrecision) and self.dtype is None:
            self.dtype = within.dtype
        elif isinstance(within, Serial) and within.layers:
            return within
        else:
            rule = "the net of the step must be a serial of layers, which may be within tied(...) or cast(...)"
            raise value_error(who, rule, repr(net))
        return self._unwrapped(who, net, within.layer)

    @property
    def size(self) -> int:
        """The number of stages."""
        return len(self.ranges)

    def stage_of(self, path: str) -> int:
        """Return the stage of the layer at a path, or of a leaf in it."""
        name = path.partition(".")[0]
        if name not in self.names:
            raise value_error(self.who, f"each path in tied must begin with one of {listed(self.names)}", repr(path))
        return bisect_right([start for start, _ in self.ranges], self.names.index(name)) - 1

    def _shared(self) -> dict[str, list[int]]:
        """Return the stages that share a tied leaf, by the path that holds it."""
        home: dict[str, str] = {}
        for first, *others in [group for one in self.ties for group in one.groups]:
            home.update(dict.fromkeys(others, home.get(first, first)))
        users = {first: {self.stage_of(path) for path, one in home.items() if one == first} for first in home.values()}
        found = {first: sorted({self.stage_of(first), *stages}) for first, stages in users.items()}
        return {first: stages for first, stages in found.items() if len(stages) > 1}

    def net_of(self, stage: int) -> Serial:
        """Return the serial with only the layers of a stage."""
        first, end = self.ranges[stage]
        children = self.serial.children().items()
        return self.serial.with_children(
            {name: one if first <= i < end else Elsewhere() for i, (name, one) in enumerate(children)}
        )

    def part(self, values: Tree, stage: int) -> Tree:
        """Return the part of a tree like params that a stage holds: the entries of its layers, and leaves tied to them."""
        found = self.entries_of(values, stage)
        for path, stages in self.shared.items():
            if stage in stages:
                found = tree.replace(found, path, tree.at(values, path))
        return found

    def entries_of(self, values: Tree, stage: int) -> Tree:
        """Return the entries of a stage's layers, without leaves tied to them in other stages."""
        first, end = self.ranges[stage]
        entries = enumerate(self.serial.entries(values))
        return self.serial.pack([one if first <= i < end else _nothing(one) for i, one in entries])

    def filled(self, params: Params, stage: int) -> Params:
        """Return the params of a stage's layers from the part that it holds, with tied params wherever they are used."""
        for one in self.ties:
            params = one.filled(params)
        return self.entries_of(params, stage) if self.ties else params

    def gathered(self, gparams: Grads) -> Grads:
        """Return the gradients for the part that a stage holds, from the gradients of its layers' params."""
        for one in reversed(self.ties):
            gparams = one.gathered(gparams)
        return gparams

    def without_copies(self, params: Params) -> Params:
        """Return params without leaves that are tied to others."""
        for one in self.ties:
            params = one.without_copies(params)
        return params


def _nothing(values: Tree) -> Tree:
    return tree.map(lambda _: None, values)


def merged(new: Tree, old: Tree) -> Tree:
    """Return ``new``, with missing leaves taken from ``old``."""
    columns = flatten_together(old, new)
    return unflatten(old, iter([a if b is None else b for a, b in zip(*columns, strict=True)]))


def changed(new: Tree, old: Tree) -> Tree:
    """Return the leaves of ``new`` that are not the same objects as in ``old``."""
    columns = flatten_together(new, old)
    return unflatten(new, iter([None if a is b else a for a, b in zip(*columns, strict=True)]))


def _starts(who: str, names: Sequence[str], cuts: Sequence[int | str]) -> list[int]:
    """Return the number of the first layer of each stage after the first."""
    starts = [_start(who, names, cut) for cut in cuts]
    if starts != sorted(set(starts)):
        raise value_error(who, "cuts must increase: each begins a stage after the previous one", repr(tuple(cuts)))
    return starts


def _start(who: str, names: Sequence[str], cut: object) -> int:
    if isinstance(cut, str) and cut in names[1:]:
        return names.index(cut)
    if is_whole(cut) and 0 < cut < len(names):  # type: ignore[operator]  # it is a number
        return int(cut)  # type: ignore[call-overload,no-any-return]
    rule = f"each cut must be the number of a layer, from 1 to {len(names) - 1}, or the name of one after the first"
    raise value_error(who, f"{rule}; there are {listed(names)}", repr(cut) if isinstance(cut, (int, str)) else describe(cut))
