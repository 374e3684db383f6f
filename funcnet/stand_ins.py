"""Stand-ins: objects in place of the layers of a net, with their class, fields and verbs; subclasses change a verb.

A combinator accepts a stand-in in place of the layer, since it has the layer's class and fields. A stand-in is not a value: it
lives as long as the call that made it, and can keep data.
"""

from typing import Any, TypeVar

import attrs

from funcnet.combinator import Children, Combinator
from funcnet.contract import Cache, Grads, Layer, Params, Rng

_S = TypeVar("_S", bound="StandIn")


class StandIn(Layer):
    """A layer that passes every verb on to another, ``original``; created by ``stand_in_for``."""

    original: Layer

    @property
    def stochastic(self) -> bool:
        return self.original.stochastic

    @property
    def batch_dependent(self) -> bool:
        return self.original.batch_dependent

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        return self.original.apply(params, x, rng)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.apply(params, x, rng)[0]

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self.original.vjp(params, cache, gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.original.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.original.input_grad(params, cache, gy)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return repr(self.original)


def stand_in_for(layer: Layer, kind: type[_S], **own: Any) -> _S:
    """Make a stand-in of a kind, with the fields of ``layer`` and additional ones."""
    kind_of_layer: Any = type(layer)
    made: Any = object.__new__(type(type(layer).__name__, (kind, type(layer)), {}))
    fields = {one.name: getattr(layer, one.name) for one in (attrs.fields(kind_of_layer) if attrs.has(kind_of_layer) else ())}
    for name, value in {**fields, "original": layer, **own}.items():
        if name not in ("stochastic", "batch_dependent"):  # these are fields of layers made from functions, and properties here
            object.__setattr__(made, name, value)
    return made  # type: ignore[no-any-return]


def with_stand_ins(layer: Layer, children: Children) -> Layer:
    """Return a net with stand-ins for its layers; the net itself if it accepts only one layer for several names.

    The net may be a stand-in too, as when ``intermediates`` looks into a ``checked`` net; the result is then its original with
    the stand-ins.
    """
    if not isinstance(layer, Combinator) or not children:
        return layer
    net: Any = layer
    while isinstance(net, StandIn):
        net = net.original
    try:
        return net.with_children(children)  # type: ignore[no-any-return]
    except ValueError:
        return layer
