"""Children: what every combinator does with the layers it holds.

Child number i of a combinator takes the key ``fold_in(rng, i)``, so a net is initialized, and its noise drawn, from one key.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Cache, Layer, Params
from funcnet.errors import add_location, describe, instances, value_error
from funcnet.random import Key

layers_only = instances(Layer, "a layer (a value with init, apply and vjp)")
"""Validate a field that holds a layer."""

layer_or_none = instances((Layer, type(None)), "a layer (a value with init, apply and vjp), or None")
"""Validate a field that may hold a layer."""

tuple_of_layers = instances(Layer, "layers (values with init, apply and vjp)", several=True)
"""Validate a field that holds a tuple of layers."""


def named_apart(who: str, names: Iterable[str]) -> None:
    """Refuse names that would not make a path with dots between them: empty ones, and those with a dot in them."""
    for name in names:
        if not isinstance(name, str) or not name or "." in name:
            raise value_error(who, "a name must be a str that is not empty and has no dot in it", repr(name))


class Wrapper(Layer):
    """A combinator of one layer, in a field of this name: stochastic, and mixing the rows of a batch, where that is."""

    __slots__ = ()

    layer: Layer

    @property
    def stochastic(self) -> bool:
        return self.layer.stochastic

    @property
    def batch_dependent(self) -> bool:
        return self.layer.batch_dependent


def init(layers: Iterable[Layer], rng: Key | int) -> list[Params]:
    """Make each child's fresh parameters."""
    return [layer.init(random.fold_in(rng, i)) for i, layer in enumerate(layers)]


def run(layer: Layer, params: Params, x: Any, rng: Key | int | None, i: int) -> tuple[Any, Cache]:
    """Apply child number i, with its key where it takes one; without a key the child says what it lacks."""
    apply: Callable[..., tuple[Any, Cache]] = layer.apply
    return apply(params, x, random.fold_in(rng, i)) if layer.stochastic and rng is not None else apply(params, x)


def predict(layer: Layer, params: Params, x: Any, rng: Key | int | None, i: int) -> Any:
    """Return the output of child number i alone, so that no cache is kept alive."""
    return layer(params, x, random.fold_in(rng, i)) if layer.stochastic and rng is not None else layer(params, x)


def at(where: str, f: Callable[..., Any], *arguments: Any) -> Any:
    """Call a child's function; an error gets a note saying where in the net it happened."""
    try:
        return f(*arguments)
    except Exception as error:
        add_location(error, where)
        raise


def stochastic(layers: Iterable[Layer]) -> bool:
    """Tell whether any child takes a key."""
    return any(layer.stochastic for layer in layers)


def batch_dependent(layers: Iterable[Layer]) -> bool:
    """Tell whether any child mixes the rows of a batch."""
    return any(layer.batch_dependent for layer in layers)


def has_running_stats(layers: Iterable[Layer]) -> bool:
    """Tell whether any child has statistics of its own to update."""
    return any(layer.has_running_stats for layer in layers)


def inference(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return each child for evaluation."""
    return tuple(layer.inference() for layer in layers)


def update_stats(layers: Iterable[Layer], entries: Iterable[Params], cache: Iterable[Cache]) -> list[Params]:
    """Fold each child's batch statistics in."""
    return [layer.update_stats(p, c) for layer, p, c in zip(layers, entries, cache, strict=True)]


def entries(who: str, params: Params, count: int) -> Params:
    """Return a tuple of params, one entry per child, as it is; another raises ``ValueError``."""
    if type(params) is not tuple or len(params) != count:
        raise value_error(who, f"params must be a tuple of {count}, one entry per layer", describe(params))
    return params


def trained(params: Params) -> bool:
    """Tell whether there is any tensor in params, so that going back for their gradient is worth it."""
    return Tensor in map(type, params.values() if isinstance(params, dict) else ()) or bool(tree.leaves(params))
