"""Roles: which leaves of params are trained, which are frozen, and which are buffers, such as running statistics."""

from collections.abc import Iterator

from attrs import define
from torch import Tensor

from funcnet.combinator import Combinator
from funcnet.combinators.sharing import Tied
from funcnet.contract import Layer, Params, meta_params
from funcnet.errors import value_error
from funcnet.flattening import join
from funcnet.paths import named_leaves
from funcnet.walking import walk

_MOST_LISTED = 10


@define(frozen=True)
class Roles:
    """The paths of the leaves that are not trained.

    Args:
        buffers: Running statistics, integers, and other tensors that ``non_trainable`` names.
        frozen: The other leaves within ``freeze``, and the params of layers that ``non_trainable`` names.
    """

    buffers: frozenset[str]
    frozen: frozenset[str]


def roles(net: Layer, params: Params) -> Roles:
    """Find the roles of the leaves of params."""
    leaves = {path: leaf for path, leaf in named_leaves("", params) if leaf is not None}
    named = {*_non_trainable(net)}
    numbers = {path for path, leaf in leaves.items() if not (leaf.is_floating_point() or leaf.is_complex())}
    outermost = dict(reversed([*walk(net)]))
    heads = {path for path, layer in outermost.items() if not layer.trainable} | named
    frozen = {path for path in leaves if _is_within(path, heads) and not _is_trained_elsewhere(net, path, heads)}
    return Roles(frozenset(numbers | named & leaves.keys()), frozenset(frozen))


def _is_within(path: str, heads: set[str]) -> bool:
    return any(f"{path}.".startswith(f"{head}.".lstrip(".")) for head in heads)


def _is_trained_elsewhere(net: Layer, path: str, heads: set[str]) -> bool:
    """Return whether a leaf is tied to a path outside all heads."""
    groups = [(at, group) for at, layer in walk(net) if isinstance(layer, Tied) for group in layer.groups]
    for at, (first, *others) in groups:
        start = join(at, first)
        places = [join(at, other) for other in others] if _is_within(path, {start}) else []
        if any(not _is_within(place + path[len(start) :], heads) for place in places):
            return True
    return False


def _non_trainable(net: Layer) -> Iterator[str]:
    """Yield the paths named in ``non_trainable`` of layers, and of their inference forms, as for BatchNorm."""
    for path, layer in walk(net):
        evaluated = layer if isinstance(layer, Combinator) else layer.inference()
        yield from (join(path, name) for name in (*layer.non_trainable, *evaluated.non_trainable))


def require_params(who: str, net: Layer, params: Params) -> None:
    """Raise ``ValueError`` unless params have the paths and shapes of ``net.init(key)``."""
    odd = next((path for path, leaf in named_leaves("", params) if not isinstance(leaf, Tensor | None)), None)
    if odd is not None:
        raise value_error(who, "every leaf of params must be a tensor", f"another at {odd!r}")
    given, wanted = _shapes(params), _shapes(meta_params(net))
    words = [f"no {path!r}" for path in wanted if path not in given]
    words += [f"{path!r}, which the net lacks" for path in given if path not in wanted]
    words += [
        f"{path!r} of shape {given[path]} instead of {shape}" for path, shape in wanted.items() if given.get(path, shape) != shape
    ]
    if words:
        more = [f"{len(words) - _MOST_LISTED} more"] * (len(words) > _MOST_LISTED)
        raise value_error(who, "params must have the paths and shapes of the net's", "; ".join(words[:_MOST_LISTED] + more))


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in named_leaves("", params) if leaf is not None}
