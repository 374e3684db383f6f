"""Turns: each layer of a net reports its gradient as soon as the backward pass has computed it.

In the backward pass, each layer that has a gradient is replaced with a wrapper. It passes the gradient to a reducer, which sends
it, and returns a mark instead, which combinators pass on.
"""

from typing import Any, Protocol

from funcnet import tree
from funcnet.combinator import has_params
from funcnet.combinators.mixed_precision import MixedPrecision
from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.places import OpenCast, Places, is_open
from funcnet.precision import in_single
from funcnet.stand_ins import StandIn, stand_in_for


class Reducer(Protocol):
    """Combines the gradients of this worker with those of all others."""

    def begin(self, entries: list[Params], weight: Any = None, numbers: Any = None) -> None:
        """Start a backward pass for a net whose layers have these params; see ``AllReduce``."""

    def report(self, place: int, gradient: Params) -> None:
        """Accept the finished gradient of the layer at a place, and send it if its bucket is complete."""

    def finish(self) -> list[Any]:
        """Wait for all messages; return the gradient of each place, or ``None`` if none was reported."""


class Sent:
    """A mark for a gradient that has been passed to a reducer."""

    __slots__ = ()


SENT = Sent()


class Reporting(StandIn):
    """A layer that reports its gradient to a reducer."""

    place: int
    turns: "Turns"

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.original.vjp(params, cache, gy)
        return self.turns.take(self.place, gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.turns.take(self.place, self.original.grads(params, cache, gy))


class Turns:
    """The backward pass of a net that passes the gradient of each layer to a reducer in turn."""

    def __init__(self, net: Layer) -> None:
        self.net = self._with_turns(net)
        self.places = Places(self.net)
        for place, layer in enumerate(self.places.layers):
            if isinstance(layer, Reporting):
                object.__setattr__(layer, "place", place)

    def _with_turns(self, layer: Layer) -> Layer:
        if not layer.trainable:
            return layer
        if is_open(layer):
            return layer.with_children({name: self._with_turns(child) for name, child in layer.children().items()})
        if type(layer) is MixedPrecision:
            return OpenCast(self._with_turns(layer.layer), layer.dtype)
        return stand_in_for(layer, Reporting, place=-1, turns=self)

    def take(self, place: int, gradient: Any) -> Any:
        """Pass the gradient of a place to the reducer, added to that of earlier micro-batches."""
        if not has_params(self._entries[place]):
            return gradient
        if self._earlier is not None:
            gradient = tree.add(self._earlier[place], tree.map(in_single, gradient))
        self._reducer.report(place, gradient)
        return SENT

    def grads(
        self, reducer: Reducer, params: Params, cache: Cache, gy: Any, *, earlier: Params | None = None, **more: Any
    ) -> Grads:
        """Return the gradient of the net on all workers; ``earlier`` is added to this worker's own.

        Other arguments are passed to the reducer's ``begin``.
        """
        self._reducer, self._entries = reducer, self.places.entries(params)
        self._earlier = None if earlier is None else self.places.entries(earlier)
        layers = zip(self._entries, self.places.layers, strict=True)  # a frozen layer reports nothing, so nothing waits for it
        reducer.begin([entry if isinstance(layer, Reporting) else () for entry, layer in layers], **more)
        found = self.places.entries(self.net.grads(params, cache, gy))
        summed = reducer.finish()
        self._entries, self._earlier = [], None  # nothing is held between steps
        entries = [all_of if one is SENT else one for one, all_of in zip(found, summed, strict=True)]
        made: Params = self.places.whole(iter(entries))
        return made
