"""Turns: each layer of a net hands its gradient over as soon as the backward pass has it.

The backward pass is run on the net with a stand-in for each layer that has a gradient of its own. A stand-in returns a mark in
the place of the gradient, which combinators pass on, and gives the gradient itself to a reducer, which sends it.
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
    """What makes the gradients of one worker those of all."""

    def begin(self, entries: list[Params], weight: Any = None, numbers: Any = None) -> None:
        """Start a backward pass for a net whose layers have these params; see ``AllReduce``."""

    def report(self, place: int, gradient: Params) -> None:
        """Take the gradient of the layer at a place, which is done, and perhaps send it."""

    def finish(self) -> list[Any]:
        """Wait for what was sent; return the gradient of each place, ``None`` where no gradient was reported."""


class Sent:
    """The mark of a gradient that a reducer has."""

    __slots__ = ()


SENT = Sent()


class Reporting(StandIn):
    """A layer that hands its gradient over."""

    place: int
    turns: "Turns"

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = self.original.vjp(params, cache, gy)
        return self.turns.take(self.place, gparams), gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.turns.take(self.place, self.original.grads(params, cache, gy))


class Turns:
    """The backward pass of a net in which a reducer gets the gradient of each layer in its turn."""

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
        """Hand the gradient of a place to the reducer, with what earlier micro-batches gave for it."""
        if not has_params(self._entries[place]):
            return gradient
        if self._earlier is not None:
            gradient = tree.add(self._earlier[place], tree.map(in_single, gradient))
        self._reducer.report(place, gradient)
        return SENT

    def grads(
        self, reducer: Reducer, params: Params, cache: Cache, gy: Any, *, earlier: Params | None = None, **more: Any
    ) -> Grads:
        """Return the gradient of the net on all workers; ``earlier`` is what this worker adds to its own.

        What else is given goes to the reducer's ``begin``.
        """
        self._reducer, self._entries = reducer, self.places.entries(params)
        self._earlier = None if earlier is None else self.places.entries(earlier)
        layers = zip(self._entries, self.places.layers, strict=True)  # a frozen one reports nothing, so nothing waits for it
        reducer.begin([entry if isinstance(layer, Reporting) else () for entry, layer in layers], **more)
        found = self.places.entries(self.net.grads(params, cache, gy))
        summed = reducer.finish()
        self._entries, self._earlier = [], None  # nothing is held between steps
        entries = [all_of if one is SENT else one for one, all_of in zip(found, summed, strict=True)]
        made: Params = self.places.whole(iter(entries))
        return made
