"""Metering: a net whose layers are replaced by stand-ins that record what each of them returns, caches and computes.

While a stand-in runs, the FLOPs of kernels are counted for its layer, unless an inner layer runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinator import Combinator
from funcnet.contract import Cache, Grads, Layer, Params, Rng, meta_key
from funcnet.flattening import join
from funcnet.kernels.flops import flops_of
from funcnet.kernels.private_names import DispatchMode
from funcnet.kernels.tracing import is_eager
from funcnet.stand_ins import StandIn, stand_in_for, with_stand_ins

Storages = dict[int, torch.UntypedStorage]
"""Storages by id, which is valid as long as they are kept here."""


def storages(values: Any) -> Storages:
    """Return the storages of the tensors in a tree; none within ``vmap``, where they are unknown."""
    leaves = [leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor)] if is_eager() else []
    return {id(one): one for one in [leaf.untyped_storage() for leaf in leaves]}


class Record:
    """The data of one layer: its path, the output of its first call, the memory that all calls kept, and their FLOPs."""

    def __init__(self, path: str, layer: Layer) -> None:
        self.path, self.layer = path, layer
        self.output: Any = None
        self.kept: Storages = {}
        self.flops, self.backward_flops = 0, 0
        self.within: list[Record] = []

    def walk(self) -> Iterator["Record"]:
        """Yield this record and those of the inner layers, outermost first."""
        yield self
        for one in self.within:
            yield from one.walk()


class Meter(DispatchMode):  # type: ignore[misc]  # torch's own class is untyped
    """A mode that counts the FLOPs of kernels for the current record."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Record] = []
        self.backward = False
        self._counted = 0

    def __torch_dispatch__(self, kernel: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = kernel(*arguments, **(options or {}))
        self._add(flops_of(kernel, arguments, options or {}, result))
        return result

    def _add(self, count: int) -> None:
        if self.backward:
            self.running[-1].backward_flops += count
        else:
            self.running[-1].flops += count

    def _settle(self) -> None:
        """Add the FLOPs since the last call to the current record, if the mode sees no kernels and torch counts instead."""
        if self.running and hasattr(self, "counted"):
            before, self._counted = self._counted, self.counted()
            self._add(self._counted - before)

    @contextmanager
    def of(self, record: Record) -> Iterator[None]:
        """Count for this record, until the block ends."""
        self._settle()
        self.running.append(record)
        try:
            yield
        finally:
            self._settle()
            self.running.pop()


class MeteredLayer(StandIn):
    """A stand-in that records its calls."""

    meter: Meter
    record: Record

    def apply(self, params: Params, x: Any, rng: Rng = None, **options: Any) -> tuple[Any, Cache]:
        with self.meter.of(self.record):
            y, cache = self.original.apply(params, x, rng, **options)
        self.record.output = y if self.record.output is None else self.record.output
        self.record.kept |= storages(cache)
        return y, cache

    def __call__(self, params: Params, x: Any, rng: Rng = None, **options: Any) -> Any:
        with self.meter.of(self.record):
            y = self.original(params, x, rng, **options)
        self.record.output = y if self.record.output is None else self.record.output
        return y

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        with self.meter.of(self.record):
            return self.original.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        with self.meter.of(self.record):
            return self.original.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        with self.meter.of(self.record):
            return self.original.input_grad(params, cache, gy)

    def replace(self, **changes: Any) -> Any:
        """Return the layer with other fields; it does not record."""
        return self.original.replace(**changes)


def metered(layer: Layer, path: str, meter: Meter) -> MeteredLayer:
    """Make the stand-in for a layer, with stand-ins for its inner layers, unless these compute as one."""
    record = Record(path, layer)
    return stand_in_for(_with_metered_layers(layer, record, meter), MeteredLayer, meter=meter, record=record)


def _with_metered_layers(layer: Layer, record: Record, meter: Meter) -> Layer:
    if not isinstance(layer, Combinator) or layer.computes_as_one:
        return layer
    made = {
        name: metered(child, join(record.path, name) if name else record.path, meter) for name, child in layer.children().items()
    }
    inner = with_stand_ins(layer, {**made})
    record.within = [] if inner is layer else [one.record for one in made.values()]
    return inner


def measure(net: Layer, params: Params, x: Any) -> tuple[Record, Any, Cache]:
    """Run a net forward and backward, with params and x on the meta device; return its record, its output and its cache."""
    meter = Meter()
    top = metered(net, "", meter)
    with meter, meter.of(Record("", net)):
        y, cache = top.apply(params, x, meta_key(net))
        meter.backward = True
        top.vjp(params, cache, tree.map(lambda leaf: torch.empty_like(leaf) if leaf.is_floating_point() else None, y))
    return top.record, y, cache
