"""Spies: layers that replace the inner layers of a net, and log every call.

A spy has the class of the layer that it replaces, so validators accept it, and delegates to that layer. It makes the given
claims: that it needs a key, depends on the batch, has running statistics, or has a custom backward rule. Its results can be
recognized: its cache has its name, and the params from its ``update_stats`` are new tensors.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from funcnet import random, tree
from funcnet.combinator import Combinator
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.kernels.tracing import is_mapped
from funcnet.random.keys import Key
from funcnet.value import Value

CLAIMS = ("stochastic", "batch_dependent", "has_running_stats", "surrogate")

Claims = frozenset[str]
"""The properties in ``CLAIMS`` that are ``True``."""

NO_KEY_NEEDED = "no key needed"
HIDDEN_KEY = "hidden by vmap"


class Call(NamedTuple):
    """A call of a spy: the verb, the name of the spy, its arguments and its result."""

    verb: str
    name: str
    key: Any = None
    params: Any = None
    given: Any = None
    result: Any = None
    settled: bool = False


class Log:
    """The shared data of the spies of a trial: their calls, their initial params, and their classes."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.params: dict[str, Params] = {}
        self.classes: dict[type, type] = {}

    def take(self, *verbs: str) -> list[Call]:
        """Return the calls of some verbs, and clear the log."""
        found = [call for call in self.calls if call.verb in verbs]
        self.calls.clear()
        return found

    def spy_class(self, kind: type) -> type:
        """Return the class of the spies that replace layers of a class."""
        if kind not in self.classes:
            self.classes[kind] = type(kind.__name__, (Spy, kind), {})
        return self.classes[kind]


class Spy(Layer):
    """A layer that delegates to another layer and logs every call; ``make_spy`` adds the class of that layer to its bases."""

    spied: Layer
    spy_name: str
    spy_log: Log
    spy_claims: Claims
    spy_settled: bool

    @property
    def stochastic(self) -> bool:
        return "stochastic" in self.spy_claims

    @property
    def batch_dependent(self) -> bool:
        return "batch_dependent" in self.spy_claims

    @property
    def has_running_stats(self) -> bool:
        return "has_running_stats" in self.spy_claims

    @property
    def surrogate(self) -> bool:
        return "surrogate" in self.spy_claims

    def init(self, rng: Key | int) -> Params:
        """Initialize the params once; later calls only log their key."""
        if self.spy_name not in self.spy_log.params:
            self.spy_log.params[self.spy_name] = self.spied.init(rng)
        params = self.spy_log.params[self.spy_name]
        self._enter("init", key=rng, result=params)
        return params

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        self._enter("apply", key=self._key(rng), params=params, given=x)
        y, cache = self.spied.apply(params, x, self._inner_key(rng))
        return y, {self._tag: cache}

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        self._enter("__call__", key=self._key(rng), params=params, given=x)
        return self.spied(params, x, self._inner_key(rng))

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self.spied.vjp(params, self._untag(cache), gy)

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.spied.grads(params, self._untag(cache), gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.spied.input_grad(params, self._untag(cache), gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        moved = tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, params)
        self._enter("update_stats", params=params, given=cache, result=moved)
        made: Params = moved
        return made

    def inverse(self, params: Params, y: Any, rng: Rng = None) -> Any:
        return self.spied.inverse(params, y, self._inner_key(rng))

    def restore(self, params: Params, y: Any, rng: Rng = None) -> tuple[Any, Cache]:
        x, cache = self.spied.restore(params, y, self._inner_key(rng))
        return x, {self._tag: cache}

    @property
    def invertible(self) -> bool:
        return self.spied.invertible

    def inference(self) -> Layer:
        settled = self.spied.inference()
        return make_spy(settled, self.spy_name, self.spy_log, self.spy_claims - {"stochastic"}, settled=True)

    def _enter(self, verb: str, **arguments: Any) -> None:
        self.spy_log.calls.append(Call(verb, self.spy_name, settled=self.spy_settled, **arguments))

    def _key(self, rng: Rng) -> Any:
        """Return the key, or a word if no key is needed or ``vmap`` hides it."""
        if not self.stochastic:
            return NO_KEY_NEEDED
        return HIDDEN_KEY if rng is not None and is_mapped(random.as_key(rng)) else rng

    def _inner_key(self, rng: Rng) -> Rng:
        """Return a key for the layer even if this spy gets none: the log records that."""
        if not self.spied.stochastic:
            return None
        return 0 if rng is None else rng

    @property
    def _tag(self) -> str:
        return cache_tag(self.spy_name)

    def _untag(self, cache: Cache) -> Cache:
        return cache[self._tag]

    def __eq__(self, other: object) -> bool:
        mine = (self.spied, self.spy_name, self.spy_settled)
        return isinstance(other, Spy) and mine == (other.spied, other.spy_name, other.spy_settled)

    def __hash__(self) -> int:
        return hash(self.spied)

    def __repr__(self) -> str:
        return repr(self.spied)


def make_spy(layer: Any, name: str, log: Log, claims: Claims | None = None, *, settled: bool = False) -> Spy:
    """Make a spy with the class and the fields of ``layer``; by default it makes the claims of the layer."""
    made: Any = object.__new__(log.spy_class(type(layer)))
    for one in _fields(layer):
        if one.name not in CLAIMS:
            object.__setattr__(made, one.name, getattr(layer, one.name))
    claims = frozenset([claim for claim in CLAIMS if getattr(layer, claim)]) if claims is None else claims
    own = {"spied": layer, "spy_name": name, "spy_log": log, "spy_claims": claims, "spy_settled": settled}
    for field, value in own.items():
        object.__setattr__(made, field, value)
    return made  # type: ignore[no-any-return]


def cache_tag(name: str) -> str:
    """Return the key under which a spy's cache contains the cache of its layer."""
    return f"cache of {name}"


def layers_in_fields(layer: Layer) -> dict[str, Layer]:
    """Return the layers given to the constructor, by field, with an index if a field has several.

    Containers and other values are searched; inner layers are not.
    """
    found: dict[str, Layer] = {}
    for one in _fields(layer):
        inside = [*_layers_within(getattr(layer, one.name))] if one.init else []
        found |= {f"{one.name}[{i}]" if len(inside) > 1 else one.name: part for i, part in enumerate(inside)}
    return found


def _layers_within(value: Any) -> Iterator[Layer]:
    if isinstance(value, Layer):
        yield value
    elif isinstance(value, (tuple, list, set, frozenset, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _layers_within(part)
    elif isinstance(value, Value):
        for one in _fields(value):
            yield from _layers_within(getattr(value, one.name)) if one.init else ()


def inner_layers(layer: Layer) -> dict[str, Layer]:
    """Return the children of a combinator, or the layers in the fields of another layer."""
    return layer.children() if isinstance(layer, Combinator) else layers_in_fields(layer)


def with_spies(layer: Layer, log: Log, claims: Mapping[str, Claims]) -> tuple[Layer, dict[str, Spy]]:
    """Return the layer with spies in place of its inner layers, and the spies by name, each with its entry in ``claims``.

    A combinator that accepts only one layer for several of its names gets one spy for them, with the claims of all.

    Raises:
        ValueError: If the layer accepts no inner layer with these claims.
    """
    spies = {name: make_spy(part, name, log, claims.get(name, Claims())) for name, part in inner_layers(layer).items()}
    if not isinstance(layer, Combinator):
        return _with_spies_in_fields(layer, iter(spies.values())), spies
    try:
        return layer.with_children({**spies}), spies
    except ValueError:
        spies = _one_spy_for_each_object(layer, log, claims)
        return layer.with_children({**spies}), spies


def _one_spy_for_each_object(layer: Combinator, log: Log, claims: Mapping[str, Claims]) -> dict[str, Spy]:
    names: dict[int, list[str]] = {}
    for name, child in layer.children().items():
        names.setdefault(id(child), []).append(name)
    joint = {key: Claims().union(*[claims.get(name, Claims()) for name in same]) for key, same in names.items()}
    made = {id(child): make_spy(child, names[id(child)][0], log, joint[id(child)]) for child in layer.children().values()}
    return {name: made[id(child)] for name, child in layer.children().items()}


def _with_spies_in_fields(value: Any, spies: Iterator[Layer]) -> Any:
    changes = {one.name.lstrip("_"): _put_spies(getattr(value, one.name), spies) for one in _fields(value) if one.init}
    return value.replace(**changes)


def _put_spies(value: Any, spies: Iterator[Layer]) -> Any:
    """Replace the layers in a field; they come in the order of ``layers_in_fields``."""
    if isinstance(value, Layer):
        return next(spies)
    if isinstance(value, (tuple, frozenset)):
        return type(value)([_put_spies(part, spies) for part in value])
    return _with_spies_in_fields(value, spies) if isinstance(value, Value) and [*_layers_within(value)] else value


def _fields(value: Any) -> tuple[Any, ...]:
    return attrs.fields(type(value)) if attrs.has(type(value)) else ()
