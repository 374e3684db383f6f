"""Surrogates: layers with a custom backward rule, and nets where each of them is replaced by the linear map that it declares.

    y = y₀ + gy₀ (⟨gx₀, x - x₀⟩ + ⟨gp₀, p - p₀⟩) / ⟨gy₀, gy₀⟩

x₀, p₀ and y₀ are the input, params and output of a surrogate in the net, gy₀ is the gradient that reached it, and gx₀ and gp₀ are
what its ``vjp`` returned. At this point the net keeps its values, and its derivative is the chain rule through the declared
rules, however the surrogates treat gy.
"""

import inspect
from collections.abc import Iterator
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor

from funcnet.combinator import Combinator
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.flattening import flatten_together, unflatten
from funcnet.kernels.tracing import is_mapped
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_equal, named, require, run


def check_declared(layer: Layer, params: Params, x: Any, rng: Key | int, gy: Any) -> None:
    """Require that the ``vjp`` of a surrogate agrees with its ``declared_vjp``, if it declares a formula."""
    key = rng if layer.stochastic else None
    want = layer.declared_vjp(params, x, gy, key)
    if want is not None:
        got = layer.vjp(params, run(layer, params, x, rng)[1], gy)
        check_equal(layer, "vjp must agree with declared_vjp", named(got), named(want), scale=gy)


def with_declared_rules(layer: Layer, params: Params, x: Any, rng: Key | int, gy: Any) -> Layer:
    """Return the net with every surrogate replaced by the linear map that it declares at this point.

    Raises:
        LawError: If ``vmap`` hides the numbers of a surrogate, or no gradient reaches it.
    """
    log: list[_Call] = []
    spied = _in_place_of_surrogates(layer, count(), lambda place, one: _Recorder(place, one, log))
    _, cache = run(spied, params, x, rng)
    calls = [*log]
    spied.vjp(params, cache, gy)
    _take_gradients(calls, log[len(calls) :])
    rule = "every surrogate within must be called, outside of vmap, and get a gradient in vjp, so that law 1 can try the net"
    require(all(call.is_complete() for call in calls), layer, rule)
    return _in_place_of_surrogates(layer, count(), lambda place, one: _Replay(place, one, calls))


def _take_gradients(calls: "list[_Call]", again: "list[_Call]") -> None:
    """Give calls whose caches were recomputed in ``vjp``, as in ``remat``, the gradients of the calls that recomputed them.

    These had the same params and x, up to rounding if x was restored, as in ``reversible``.
    """
    left = [call for call in again if call.back is not None]
    for call in calls:
        same = [one for one in left if call.back is None and one.place == call.place and not (call.is_hidden or one.is_hidden)]
        if same:
            nearest = min(same, key=call.distance)
            call.back = nearest.back
            left.remove(nearest)


def is_own_surrogate(layer: Layer) -> bool:
    """Return whether a layer itself has a custom backward rule; a net that only contains such a layer does not."""
    if not layer.surrogate or not isinstance(layer, Combinator):
        return layer.surrogate
    static = inspect.getattr_static(type(layer), "surrogate")
    return isinstance(static, bool) or not any(child.surrogate for child in layer.children().values())


def _in_place_of_surrogates(layer: Layer, places: Iterator[int], make: Any) -> Layer:
    if is_own_surrogate(layer):
        made: Layer = make(next(places), layer)
        return made
    if not isinstance(layer, Combinator) or not layer.surrogate:
        return layer
    return layer.with_children({name: _in_place_of_surrogates(child, places, make) for name, child in layer.children().items()})


class _Call:
    """The data of one call of a surrogate: params, x and y, and from ``vjp`` gy, gp and gx."""

    def __init__(self, place: int, point: Any, y: Any) -> None:
        self.place, self.point, self.y = place, point, y
        self.back: tuple[Any, Any] | None = None
        self.is_hidden = any(is_mapped(leaf) for leaf in flatten_together(y)[0] if isinstance(leaf, Tensor))

    def distance(self, other: "_Call") -> float:
        """Return the distance between params and x of two calls."""
        pairs = zip(_floating(self.point), _floating(other.point), strict=True)
        return sum([float((a - b).abs().sum()) for a, b in pairs if a.is_floating_point()])

    def is_complete(self) -> bool:
        return self.back is not None and not self.is_hidden


class _InPlace(Layer):
    """A layer in place of a surrogate. It is not a value: it counts its calls."""

    def __new__(cls, place: int, layer: Layer, log: list[_Call]) -> Self:
        return object.__new__(cls)

    def __init__(self, place: int, layer: Layer, log: list[_Call]) -> None:
        self.place, self.layer, self.log, self.count = place, layer, log, 0

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    @property
    def batch_dependent(self) -> bool:
        return self.layer.batch_dependent

    def init(self, rng: Key | int) -> Params:
        return self.layer.init(rng)

    def __repr__(self) -> str:
        return repr(self.layer)


class _Recorder(_InPlace):
    """A surrogate that logs its calls."""

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self.layer.apply(params, x, rng)
        self.log.append(_Call(self.place, (params, x), y))
        return y, (len(self.log) - 1, cache)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        i, inner = cache
        gradients = self.layer.vjp(params, inner, gy)
        self.log[i].back = (gy, gradients)
        return gradients


class _Replay(_InPlace):
    """The linear map that a surrogate declares, for its calls in the order of the log."""

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        calls = [call for call in self.log if call.place == self.place]
        call = calls[self.count % len(calls)]
        self.count += 1
        gy, gradients = call.back or ((), ())
        moved = sum([(g * (p - q)).sum() for g, p, q in _triples(gradients, (params, x), call.point)], torch.zeros(()))
        moved = moved / sum([(g * g).sum() for g in _floating(gy)], torch.zeros(())).clamp_min(torch.finfo(torch.float64).tiny)
        steps = [y if g is None else y + moved * g for y, g in zip(*flatten_together(call.y, gy), strict=True)]
        return unflatten(call.y, iter(steps)), call.back

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        own, gradients = cache
        pairs = [(g, h) for g, h in zip(*flatten_together(own, gy), strict=True) if g is not None]
        share = sum([(g * h).sum() for g, h in pairs], torch.zeros(()))
        share = share / sum([(g * g).sum() for g, _ in pairs], torch.zeros(())).clamp_min(torch.finfo(torch.float64).tiny)
        leaves = [None if g is None else g * share for g in flatten_together(gradients)[0]]
        found: tuple[Params, Any] = unflatten(gradients, iter(leaves))
        return found


def _floating(values: Any) -> list[Tensor]:
    return [leaf for leaf in flatten_together(values)[0] if isinstance(leaf, Tensor)]


def _triples(gradients: Any, values: Any, point: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield gradient, value and original value of the leaves that have a gradient."""
    for p, q, g in zip(*flatten_together(values, point, gradients), strict=True):
        if g is not None:
            yield g, p, q
