"""Unchecked serials: the verbs of a serial for arguments that have passed the checks.

Each layer costs one call of its ``unchecked`` verb. The layers are chained by index, and params are not examined again.
"""

from typing import Any

from funcnet.combinator import has_params
from funcnet.contract import Layer
from funcnet.plans import VERBS, Unchecked, has_own


def may_be_unchecked(layer: Layer) -> bool:
    """Return whether the class of a layer, and the classes of its ``layers``, can have unchecked verbs."""
    if not has_own(type(layer), "unchecked", *VERBS) or type(layer).unchecked is Layer.unchecked:
        return False
    return all(map(may_be_unchecked, getattr(layer, "layers", ())))


def unchecked(net: Any, params: Any, cache: Any) -> Unchecked | None:
    """Return the unchecked verbs of a serial for arguments like these.

    ``None`` if a layer has no unchecked verbs, or if params that are not trained come before the first trained params.
    """
    if not net.layers:
        return None
    entries = [*net.entries(params)]
    trained = [i for i, p in enumerate(entries) if p and has_params(p) and net.layers[i].trainable]
    first = trained[0] if trained else len(entries)
    found = [layer.unchecked(p, c) for layer, p, c in zip(net.layers, entries, cache, strict=True)]
    if None in found or any(entries[:first]):
        return None
    verbs = _chain([one for one in found if one is not None], first)
    return verbs if net.names is None else _by_name(verbs, net.names)


def _by_name(verbs: Unchecked, names: tuple[str, ...]) -> Unchecked:
    """Return the same verbs for params and gradients in dicts by name."""

    def apply(params: Any, x: Any) -> tuple[Any, Any]:
        return verbs.apply([params[name] for name in names], x)

    def vjp(params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        gparams, gx = verbs.vjp([params[name] for name in names], cache, gy)
        return dict(zip(names, gparams, strict=True)), gx

    def grads(params: Any, cache: Any, gy: Any) -> Any:
        return dict(zip(names, verbs.grads([params[name] for name in names], cache, gy), strict=True))

    return Unchecked(apply, vjp, grads)


def _chain(layers: list[Unchecked], first: int) -> Unchecked:
    """Chain unchecked verbs; the layers before ``first`` have no params."""
    back = [(i, layer.vjp) for i, layer in reversed([*enumerate(layers)])]
    after, firsts = [row for row in back if row[0] > first], layers[first : first + 1]

    def vjp(params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        found = [*params]
        for i, layer in back:
            found[i], gy = layer(params[i], cache[i], gy)
        return tuple(found), gy

    def grads(params: Any, cache: Any, gy: Any) -> Any:
        found = [*params]
        for i, layer in after:
            found[i], gy = layer(params[i], cache[i], gy)
        for layer in firsts:
            found[first] = layer.grads(params[first], cache[first], gy)
        return tuple(found)

    return Unchecked(_forward([layer.apply for layer in layers]), vjp, grads)


def _forward(applies: list[Any]) -> Any:
    """Chain the ``apply`` of the layers."""

    def apply(params: Any, x: Any) -> tuple[Any, Any]:
        caches = []
        for layer, p in zip(applies, params, strict=True):
            x, cache = layer(p, x)
            caches.append(cache)
        return x, tuple(caches)

    return apply
