"""Masks select the leaves of params on which a transform acts.

A mask is one of these:

    a tree of bools like params       from ``decay_mask`` or ``tree.map_with_path``
    a function (path, leaf) -> bool   called once per structure and shapes: it must not depend on the values of the leaf
    a pattern, or a tuple of them     "*.weight", "encoder.*": the path must match one of them
    a net                             means ``decay_mask(net, params)``
    None                              selects by names and shapes, without a net; see ``AddDecayedWeights``
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcnet import tree
from funcnet.codec import TreeCodec
from funcnet.contract import Layer, Params
from funcnet.errors import value_error
from funcnet.flattening import NODES, Tree, flatten_together, join
from funcnet.kernels.tracing import is_eager
from funcnet.optim.columns import GUARDS, is_dense
from funcnet.paths import items, matches, named_leaves
from funcnet.walking import require_layer, walk

Mask = Any
"""A tree of bools, a function of path and leaf, a pattern or a tuple of patterns, a net, or ``None``."""

RULE = "a tree of bools, a function (path, leaf) -> bool, a pattern or a tuple of patterns, a net, or None"


def is_pattern(mask: Mask) -> bool:
    """Return whether a mask is a pattern of paths or a tuple of patterns."""
    return isinstance(mask, str) or (isinstance(mask, tuple) and bool(mask) and all(isinstance(one, str) for one in mask))


def mask_validator(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that holds a mask."""
    known = got is None or callable(got) or is_pattern(got)
    if not known and not all(type(leaf) is bool for leaf in (tree.leaves(got) if isinstance(got, NODES) else [got])):
        raise value_error(type(value).__name__, f"{attribute.name} must be {RULE}", got)


def comparable(mask: Mask) -> Any:
    """Return the key by which a mask is compared and hashed: the mask itself, or the leaves and paths of a tree."""
    is_tree = isinstance(mask, NODES) and not is_pattern(mask)
    return ("tree", *named_leaves("", mask)) if is_tree else mask


def decay_mask(net: Layer, params: Params) -> Tree:
    """Return a tree of bools like ``params``: ``True`` for leaves that weight decay should shrink, the weights of ``net``.

    Biases, recognized by name, do not decay, and neither do the leaves that a layer lists in ``undecayed``: the scales of norms,
    ``Scale``, ``PReLU`` and ``CauchySimilarity``. The number of axes does not matter: the stacked norms of an ``ensemble`` or a
    ``repeat`` do not decay either. Embeddings decay. A custom layer declares ``undecayed = ("gain",)``.

    Args:
        net: The net.
        params: Its params.

    Returns:
        A tree of bools in the structure of ``params``.

    Raises:
        ValueError: If ``net`` is not a layer.

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.norm.layer_norm import RMSNorm
    >>> net = serial(Linear(2, 3), RMSNorm(3))
    >>> decay_mask(net, net.init(0))
    ({'weight': True, 'bias': False}, {'weight': False})
    """
    require_layer("decay_mask", net)
    named = {join(path, name) for path, layer in walk(net) for name in layer.undecayed}
    return tree.map_with_path(lambda path, leaf: is_dense(leaf) and path not in named and not _is_bias(path), params)


def _is_bias(path: str) -> bool:
    return "bias" in path.rpartition(".")[2].split("_")


def _by_names(path: str, node: Tree, beside: Sequence[Any]) -> Tree:
    """Return a tree of bools by names and shapes: ``False`` for a bias, and for a leaf with the shape of a bias next to it."""
    if not isinstance(node, NODES):
        shapes = [one.shape for one in beside]
        return node is not None and is_dense(node) and not _is_bias(path) and node.shape not in shapes
    offsets = [one for name, one in items(node) if isinstance(one, Tensor) and (_is_bias(name) or name == "running_mean")]
    found = [_by_names(join(path, name), one, offsets) for name, one in items(node)]
    return dict(zip(node, found, strict=True)) if isinstance(node, dict) else tuple(found)


def flags_of(who: Any, mask: Mask, params: Params) -> list[bool]:
    """Return, for each leaf of params including ``None``, whether the mask selects it."""
    pairs = [*named_leaves("", params)]
    if mask is None:
        return [bool(one) for one in flatten_together(_by_names("", params, ()))[0]]
    if isinstance(mask, Layer):
        return [bool(one) for one in flatten_together(decay_mask(mask, params))[0]]
    if is_pattern(mask):
        patterns = (mask,) if isinstance(mask, str) else mask
        return [any([matches(path, one) for one in patterns]) for path, _ in pairs]  # noqa: C419 (for compiled code)
    if callable(mask):
        return [leaf is not None and _answer(who, mask, path, leaf) for path, leaf in pairs]
    return [bool(one) for one in flatten_together(params, mask)[1]]


def _answer(who: Any, mask: Callable[[str, Any], Any], path: str, leaf: Any) -> bool:
    found = mask(path, leaf)
    if type(found) is not bool:
        raise value_error(who, f"mask must return True or False, at {path!r}", found)
    return found


class FlagCache:
    """A cache of the flags of the params that a transform saw last, by structure and shapes. Copies and pickles are empty."""

    __slots__ = ("known",)

    known: tuple[tuple[TreeCodec, list[Any], list[bool]], ...]

    def __init__(self) -> None:
        self.known = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return FlagCache, ()

    def flags(self, who: Any, mask: Mask, params: Params) -> list[bool]:
        """Return, for each leaf of params, whether the mask selects it. A lookup for eight known tensors takes 2 µs."""
        for codec, kinds, flags in self.known if is_eager() else ():
            try:
                if [*map(_kind, codec.read(params))] == kinds:
                    return flags
            except LookupError:
                continue
        flags = flags_of(who, mask, params)
        if is_eager():
            kinds = [*map(_kind, flatten_together(params)[0])]
            self.known = ((TreeCodec(params), kinds, flags), *self.known[: GUARDS - 1])
        return flags


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else None
