"""Reach: whatever a combinator is asked, every layer in it hears.

Spies take the places of the layers within. A spy is of the same class, so no validator objects, and delegates to the layer it
stands for, but claims to need a key, to depend on the batch and to have running statistics, and writes down what it is asked.
"""

from collections.abc import Iterator
from typing import Any

import attrs

from funcnet import random, tree
from funcnet.combinator import Children, Combinator
from funcnet.contract import Cache, Layer, Params, Rng
from funcnet.kernels.tracing import is_mapped
from funcnet.random import Key
from funcnet.testing.comparison import check_same_bits, require, run
from funcnet.value import parts, unpacked
from funcnet.walking import map_layers
from funcnet.wrapper import Wrapper

_BASES = "or subclass funcnet.Wrapper (one layer, in the field layer) or funcnet.Combinator, which do it"
_CLAIMS = ("stochastic", "batch_dependent", "has_running_stats")

Log = list[tuple[str, str, Any]]
"""What spies were asked: the method, the name of the layer, and the key, or whether the layer was for inference."""


def check_reach(layer: Layer, params: Params, x: Any, rng: Key | int) -> None:
    """Require that ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer in the fields of ``layer``."""
    _check_unneeded_key(layer, params, x, rng)
    inside = dict(_layers_in_fields(layer))
    if inside:
        log: Log = []
        spied = _with_spies(layer, log, _claiming(layer))
        _check_claims(layer, spied)
        _check_methods(layer, spied, log, params, x, rng)
        _check_structure(layer, inside)


def _claiming(layer: Layer) -> set[str]:
    """Return the names of the layers in whose places the layer takes stochastic, batch-dependent ones; some are refused."""
    names = [*layer.children()] if isinstance(layer, Combinator) else [name for name, _ in _layers_in_fields(layer)]
    return {name for name in names if _takes(layer, name)}


def _takes(layer: Layer, name: str) -> bool:
    try:
        _with_spies(layer, [], {name})
    except ValueError:
        return False
    return True


def _check_unneeded_key(layer: Layer, params: Params, x: Any, rng: Key | int) -> None:
    if not layer.stochastic:
        rule = "a layer that needs no key must ignore one, apply(params, x, rng=None)"
        got, want = layer.apply(params, x, random.fold_in(rng, 1))[0], layer.apply(params, x)[0]
        check_same_bits(layer, rule, {"y": got}, {"y": want})


def _layers_in_fields(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield the name of the field, with an index for several, and the layer, for each layer that was given to the constructor."""
    for one in _fields(layer):
        found = [part for part in unpacked(getattr(layer, one.name)) if isinstance(part, Layer)] if one.init else []
        yield from ((f"{one.name}[{i}]" if len(found) > 1 else one.name, part) for i, part in enumerate(found))


def _fields(value: Any) -> tuple[Any, ...]:
    return attrs.fields(type(value)) if attrs.has(type(value)) else ()


def _with_spies(layer: Any, log: Log, claiming: set[str]) -> Layer:
    if isinstance(layer, Combinator):
        spies = {name: _spy(child, name, log, name in claiming) for name, child in layer.children().items()}
        spied = layer.with_children(spies)
        lost = [name for name, child in spied.children().items() if not isinstance(child, Spy)]
        require(not lost, layer, f"with_children must take every layer it is given, and loses {_quoted(lost)}")
        return spied
    names = iter([name for name, _ in _layers_in_fields(layer)])
    fields = [one.name for one in _fields(layer) if one.init]
    changes = {name: _spies_in(getattr(layer, name), names, log, claiming) for name in fields}
    made: Layer = layer.replace(**{name.lstrip("_"): value for name, value in changes.items()})
    return made


def _spies_in(value: Any, names: Iterator[str], log: Log, claiming: set[str]) -> Any:
    """Put spies in the places of the layers in a field."""
    if isinstance(value, (tuple, frozenset)):
        return type(value)([_spies_in(part, names, log, claiming) for part in value])
    if not isinstance(value, Layer):
        return value
    name = next(names)
    return _spy(value, name, log, name in claiming)


def _check_claims(layer: Layer, spied: Layer) -> None:
    """Require of a net in which every layer claims something that it claims it too."""
    spies = [part for part in parts(spied) if isinstance(part, Spy)]
    for name in _CLAIMS:
        rule = f"{name} must be True when it is of a layer within: override {name}, {_BASES}"
        require(bool(getattr(spied, name)) or not all(getattr(spy, name) for spy in spies), layer, rule)


def _check_methods(layer: Layer, spied: Layer, log: Log, params: Params, x: Any, rng: Key | int) -> None:
    spied.init(rng)
    _check_keys(layer, log, "init")
    cache = run(spied, params, x, rng)[1]
    _check_keys(layer, log, "apply")
    spied.update_stats(params, cache)
    deaf = sorted(_with_stats(layer, log) - {name for verb, name, _ in log if verb == "update_stats"})
    rule = f"update_stats must reach every layer, and does not reach {_quoted(deaf)}: override update_stats, {_BASES}"
    require(not deaf, layer, rule)
    _check_inference(layer, spied.inference(), log, params, x, rng)


def _with_stats(layer: Layer, log: Log) -> set[str]:
    """Return the layers that could have running statistics: those that ran, but for the ones without params among others."""
    alone = not isinstance(layer, Combinator) or isinstance(layer, Wrapper)
    return {name for verb, name, has_params in log if verb == "params" and (has_params or alone)}


def _check_keys(layer: Layer, log: Log, verb: str) -> None:
    """Require of the keys of one method that none is missing, and that no two are equal."""
    seen: dict[int, str] = {}
    for name, key in [(name, key) for one, name, key in log if one == verb and not isinstance(key, str)]:
        require(key is not None, layer, f"{verb} must hand a key to every stochastic layer, and {name!r} gets none")
        number = int(random.as_key(key))
        rule = f"{verb} must give every layer a key, fold_in(rng, i), and {seen.get(number)!r} and {name!r} have the same"
        require(number not in seen, layer, rule)
        seen[number] = name


def _check_inference(layer: Layer, settled: Layer, log: Log, params: Params, x: Any, rng: Key | int) -> None:
    rule = f"inference must reach every layer, and does not reach {{}}: override inference, {_BASES}"
    left = sorted({part.spy_name for part in parts(settled) if isinstance(part, Spy) and not part.spy_settled})
    require(not left, layer, rule.format(_quoted(left)))
    log.clear()
    run(settled, params, x, rng)
    left = sorted({name for verb, name, of_inference in log if verb == "settled" and not of_inference})
    require(not left, layer, rule.format(_quoted(left)))


def _check_structure(layer: Layer, inside: dict[str, Layer]) -> None:
    children: Children = layer.children() if isinstance(layer, Combinator) else {}
    missing = [name for name, part in inside.items() if all(part is not child for child in children.values())]
    rule = f"walk and map_layers must reach every layer in a field, and do not reach {_quoted(missing)}"
    require(not missing, layer, f"{rule}: subclass funcnet.Wrapper or funcnet.Combinator, with children and with_children")
    if isinstance(layer, Combinator):
        require(layer.with_children(children) == layer, layer, "with_children(children()) must give the layer back")
    require(map_layers(lambda one: one, layer) == layer, layer, "map_layers of the identity must give the layer back")


def _quoted(names: list[str]) -> str:
    return ", ".join([f"{name!r}" if name else "its layer" for name in names])


class Spy(Layer):
    """A layer that delegates to another and writes down what it is asked; ``_spy`` adds the other's class to its bases."""

    spied: Layer
    spy_name: str
    spy_log: Log
    spy_settled: bool
    spy_claims: bool

    @property
    def stochastic(self) -> bool:
        return self.spy_claims or self.spied.stochastic

    @property
    def batch_dependent(self) -> bool:
        return self.spy_claims or self.spied.batch_dependent

    @property
    def has_running_stats(self) -> bool:
        return True

    def init(self, rng: Key | int) -> Params:
        self.spy_log.append(("init", self.spy_name, rng))
        return self.spied.init(rng)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        self.spy_log.append(("settled", self.spy_name, self.spy_settled))
        self.spy_log.append(("params", self.spy_name, bool(tree.leaves(params))))
        self.spy_log.append(("apply", self.spy_name, self._key(rng)))
        return self.spied.apply(params, x, rng if self.spied.stochastic else None)

    def _key(self, rng: Rng) -> Any:
        """Return the key; a word where none is needed, or where ``vmap`` hides it."""
        if not self.stochastic:
            return "not needed"
        return "mapped" if rng is not None and is_mapped(random.as_key(rng)) else rng

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Params, Any]:
        return self.spied.vjp(params, cache, gy)

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.apply(params, x, rng)[0]

    def grads(self, params: Params, cache: Cache, gy: Any) -> Params:
        return self.spied.grads(params, cache, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.spied.input_grad(params, cache, gy)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        self.spy_log.append(("update_stats", self.spy_name, None))
        return self.spied.update_stats(params, cache)

    def inference(self) -> Layer:
        return _spy(self.spied.inference(), self.spy_name, self.spy_log, self.spy_claims, settled=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spy) and (self.spied, self.spy_settled) == (other.spied, other.spy_settled)

    def __hash__(self) -> int:
        return hash(self.spied)

    def __repr__(self) -> str:
        return repr(self.spied)


def _spy(layer: Any, name: str, log: Log, claims: bool, *, settled: bool = False) -> Layer:
    """Make a spy that has the class and the fields of the layer."""
    made: Any = object.__new__(type(type(layer).__name__, (Spy, type(layer)), {}))
    for one in _fields(layer):
        if one.name not in _CLAIMS:
            object.__setattr__(made, one.name, getattr(layer, one.name))
    own = {"spied": layer, "spy_name": name, "spy_log": log, "spy_settled": settled, "spy_claims": claims}
    for field, value in own.items():
        object.__setattr__(made, field, value)
    return made  # type: ignore[no-any-return]
