"""Reach: every call on a combinator reaches every layer in it, with the key, the params and the cache of that layer.

``Trial`` uses spies in place of the inner layers; the rest is checked on the layer itself.
"""

from typing import Any

from funcnet import random, tree
from funcnet.combinator import Children, Combinator
from funcnet.contract import Layer, Params
from funcnet.random.keys import Key
from funcnet.testing.comparison import check_kept, check_same_bits, noise_like, require, require_structure, run, same_bits
from funcnet.testing.spies import layers_in_fields
from funcnet.testing.trial import Trial, overrides, quoted
from funcnet.walking import map_layers


def check_reach(layer: Layer, params: Params, x: Any, rng: Key | int) -> None:
    """Require that ``inference``, ``update_stats``, keys and ``map_layers`` reach every layer in the fields of ``layer``."""
    rng = random.as_key(rng)
    inside = layers_in_fields(layer)
    if inside:
        trial = Trial(layer, params, x, rng)
        trial.check()
        _check_structure(layer, inside)
        trial.check_surrogate()
    if not layer.stochastic or overrides(layer, "update_stats"):
        y, cache = run(layer, params, x, rng)
        _check_unneeded_key(layer, params, x, y)
        _check_moved_leaves(layer, params, cache, y)


def _check_unneeded_key(layer: Layer, params: Params, x: Any, y: Any) -> None:
    if not layer.stochastic:
        rule = "a layer that needs no key must ignore one, apply(params, x, rng=None)"
        check_same_bits(layer, rule, {"y": layer.apply(params, x, random.key(1))[0]}, {"y": y})


def _check_moved_leaves(layer: Layer, params: Params, cache: Any, y: Any) -> None:
    """Require that ``update_stats`` keeps the structure of params, and changes only leaves without a gradient (statistics)."""
    moved = layer.update_stats(params, cache)
    require_structure(layer, "update_stats must return all of params, with its structure", params, moved)
    before, after = tree.names(params), tree.names(moved)
    odd = sorted(before.keys() ^ after.keys())
    require(not odd, layer, f"update_stats must return all of params, and no other leaves; see {quoted(odd)}")
    check_kept(layer, "update_stats must keep shapes and dtypes:", moved, params)
    changed = [path for path, leaf in after.items() if leaf is not before[path] and not same_bits(leaf, before[path])]
    rule = f"update_stats must not change params if has_running_stats is False, but changes {quoted(changed)}"
    require(layer.has_running_stats or not changed, layer, rule)
    gradients = tree.names(layer.vjp(params, cache, noise_like(y, 1))[0]) if changed else {}
    trained = [path for path in changed if path in gradients]
    rule = f"update_stats may change only running statistics, which have no gradient, but changes {quoted(trained)}"
    require(not trained, layer, rule)


def _check_structure(layer: Layer, inside: dict[str, Layer]) -> None:
    children: Children = layer.children() if isinstance(layer, Combinator) else {}
    following = layer.following if isinstance(layer, Combinator) else ()
    parts = [(name, part) for name, part in inside.items() if name not in following]
    missing = [name for name, part in parts if all(part is not child for child in children.values())]
    rule = f"walk and map_layers must reach every layer in a field, but do not reach {quoted(missing)}"
    require(not missing, layer, f"{rule}: subclass funcnet.Wrapper or funcnet.Combinator, with children and with_children")
    if isinstance(layer, Combinator):
        require(layer.with_children(children) == layer, layer, "with_children(children()) must reproduce the layer")
    require(map_layers(lambda one: one, layer) == layer, layer, "map_layers of the identity must reproduce the layer")
