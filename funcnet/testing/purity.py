"""Purity: equal arguments give equal bits, no argument is written to, and nothing but the arguments is read."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Layer, Params
from funcnet.flattening import Tree
from funcnet.random.keys import Key
from funcnet.testing.comparison import backward, check_same_bits, everything, named, noise_like, require, run, same_bits


def check_pure(layer: Layer, p: Params, x: Any, rng: Key | int) -> None:
    """Require equal bits from equal arguments, whatever was computed in between, no writes, and no randomness without a key.

    Writes are reported first, since all later comparisons would fail too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.rand(())  # otherwise a seed that the layer set earlier would go unnoticed
        _check_calls(layer, p, x, rng, torch.random.get_rng_state())
    require(not layer.stochastic or _refuses(layer, p, x), layer, "apply must raise an error without a key")


def _check_calls(layer: Layer, p: Params, x: Any, rng: Key | int, chance: Tensor) -> None:
    held = [Snapshot({"params": p, "x": x})]
    y, cache = run(layer, p, x, rng)
    gy = noise_like(y, random.fold_in(rng, 1))
    held.append(Snapshot({"y": y, "cache": cache, "gy": gy}))
    first = {**named(layer.vjp(p, cache, gy)), "y": y}
    _require_untouched(layer, held, chance)
    again = everything(layer, p, x, gy, rng)
    _require_untouched(layer, held, chance)
    everything(layer, **other({"params": p, "x": x, "gy": gy}), rng=rng)
    check_same_bits(layer, "the same arguments must give the same bits", first, again)
    check_same_bits(layer, "the same cache must give the same bits", named(layer.vjp(p, cache, gy)), again)
    _check_clones(layer, (p, x, gy, rng), cache, again)
    _require_untouched(layer, held, chance)


def _require_untouched(layer: Layer, held: list["Snapshot"], chance: Tensor) -> None:
    require_unchanged(layer, held)
    require(torch.equal(chance, torch.random.get_rng_state()), layer, "torch's global generator must not be used")


def _check_clones(layer: Layer, arguments: tuple[Any, ...], cache: Any, want: Tree) -> None:
    """Require that clones of the arguments give the same bits: a layer must not distinguish tensors by identity."""
    check_same_bits(layer, "equal arguments must give equal bits, clones too", everything(layer, *_clone_all(arguments)), want)
    p, _, gy, _ = arguments
    for rule, parts in {
        "a clone of the cache must give the same bits": (p, _clone_all(cache), gy),
        "clones of params and gy must give the same bits": (_clone_all(p), cache, _clone_all(gy)),
    }.items():
        check_same_bits(layer, rule, backward(layer, *parts), want)


def _clone_all(values: Tree) -> Tree:
    return tree.map(lambda leaf: _clone(leaf) if isinstance(leaf, Tensor) else leaf, values)


def _clone(leaf: Tensor) -> Tensor:
    """Copy a tensor with its memory: kernels depend on strides, which a plain clone of an expanded tensor loses."""
    memory: Any = leaf.detach().untyped_storage()
    return leaf.new_empty(0).set_(memory.clone(), leaf.storage_offset(), leaf.shape, leaf.stride())


def other(values: Tree) -> Tree:
    """Return other values of the same kind, closer to 0 so that they stay in the domain of the layer."""
    return tree.map(lambda leaf: leaf * 0.75 if leaf.is_floating_point() else leaf, values)


def _refuses(layer: Layer, params: Params, x: Any) -> bool:
    try:
        layer.apply(params, x)
    except Exception:
        return True
    return False


class Snapshot:
    """The contents of a tree at one time, to compare with later contents, including integers and workspaces of kernels."""

    def __init__(self, values: Tree) -> None:
        self._values = values
        self._leaves = tree.names(values)
        self._versions = {path: leaf._version for path, leaf in self._tensors()}
        self._copies = {path: leaf.clone() for path, leaf in self._tensors()}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((path, leaf) for path, leaf in self._leaves.items() if isinstance(leaf, Tensor))

    def changed(self) -> Iterator[str]:
        """Yield the paths of the leaves that were written to or replaced since."""
        now = tree.names(self._values)
        yield from (path for path in sorted(now.keys() | self._leaves.keys()) if now.get(path) is not self._leaves.get(path))
        for path, leaf in self._tensors():
            if leaf._version != self._versions[path] or not same_bits(leaf, self._copies[path]):
                yield path


def require_unchanged(layer: Layer, snapshots: list[Snapshot]) -> None:
    """Require that nothing was written to since the snapshots were taken."""
    for path in [path for snapshot in snapshots for path in snapshot.changed()]:
        require(False, layer, f"nothing may be written to, but {path} was")


def check_own_memory(layer: Layer, params: Params) -> None:
    """Require that each element of fresh params has separate memory, since an optimizer can write to donated params."""
    rule = "init must return each element in its own memory"
    places: dict[int, str] = {}
    for path, leaf in tree.names(params).items():
        require(not _overlaps(leaf), layer, f"{rule}, but {path} is expanded or overlaps: clone it")
        if leaf.numel():
            memory = leaf.untyped_storage().data_ptr()
            require(memory not in places, layer, f"{rule}, but {places.get(memory)} and {path} share memory: clone one")
            places[memory] = path


def _overlaps(leaf: Tensor) -> bool:
    """Return whether two elements share memory: each axis must step further than all axes with shorter steps reach."""
    reach = 0
    for stride, size in sorted(zip(leaf.stride(), leaf.shape, strict=True)):
        if leaf.numel() and size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False
