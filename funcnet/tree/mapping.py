"""Leaves in order and by name, functions of leaves, and trees built from names."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.errors import describe as described
from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.paths import build_tree, named_leaves
from funcnet.tree.argument_errors import require_function


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:  # noqa: A001 (the usual name)
    """Apply ``f`` to every leaf of a tree; absent leaves stay ``None``.

    Args:
        f: A function of a leaf of ``tree`` and the leaves of ``rest`` at the same path.
        tree: A tree.
        rest: Further trees of the same structure.

    Returns:
        The tree of the results.

    Raises:
        ValueError: If the trees disagree; the message names the first path where they do.

    >>> map(lambda a, b: a + b, {"w": 1, "b": None}, {"b": None, "w": 2})
    {'w': 3, 'b': None}
    """
    require_function("map", f)
    rows = zip(*flatten_together(tree, *rest), strict=True)
    return unflatten(tree, iter([None if any(leaf is None for leaf in row) else f(*row) for row in rows]))


def leaves(tree: Tree) -> list[Any]:
    """List the leaves of a tree in order, without absent ones.

    Args:
        tree: A tree.

    Returns:
        A list of leaves.

    >>> leaves({"a": 1, "b": (2, None)})
    [1, 2]
    """
    return [leaf for leaf in flatten_together(tree)[0] if leaf is not None]


def structure(tree: Tree) -> Tree:
    """Return the tree with ``"*"`` for every leaf, absent or not; two trees match if their structures are equal.

    Args:
        tree: A tree.

    Returns:
        A tree of ``"*"``.

    >>> structure({"a": 1, "b": (2, None)})
    {'a': '*', 'b': ('*', '*')}
    """
    return unflatten(tree, iter(["*"] * len(flatten_together(tree)[0])))


def names(tree: Tree) -> dict[str, Any]:
    """Map the dotted path of each leaf to the leaf; the path of a tree that is a single leaf is ``""``.

    Args:
        tree: A tree.

    Returns:
        A dict from paths to leaves, in order.

    Raises:
        ValueError: If two leaves have the same path, as with the keys ``1`` and ``"1"``.

    >>> names(({"weight": 1, "bias": 2}, {}, {"weight": 3}))
    {'0.weight': 1, '0.bias': 2, '2.weight': 3}
    """
    pairs = [(path, leaf) for path, leaf in named_leaves("", tree) if leaf is not None]
    named = dict(pairs)
    if len(named) < len(pairs):
        raise value_error("names", "the paths of the leaves must be unique", ", ".join(path for path, _ in pairs))
    return named


def along(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Apply ``f(path, leaf)`` to every leaf; absent leaves stay ``None``."""
    return unflatten(tree, iter([None if leaf is None else f(path, leaf) for path, leaf in named_leaves("", tree)]))


def same_leaf(x: Any, y: Any) -> bool:
    """Return whether two leaves have the same dtype, device, shape and value."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
    return type(x) is type(y) and bool(x == y)


def from_names(named: dict[str, Any], like: Tree = None) -> Tree:
    """Build a tree from leaves by path, like those of a ``state_dict``: the inverse of ``names``.

    Without ``like``, a node whose keys are all numbers becomes a tuple, with ``{}`` in its gaps, and any other node a dict. With
    ``like``, the result has its structure, absent leaves and empty nodes included. A leaf that is absent from ``like`` may be in
    ``named`` if it equals another leaf, as tied weights do; it is left out.

    Args:
        named: A dict from paths to leaves.
        like: A tree of the structure to build; ``None`` to derive it from the names.

    Returns:
        A tree.

    Raises:
        ValueError: If paths are missing or unknown, or a path leads through another leaf; the message names the paths.

    >>> from_names({"0.weight": 1, "2.weight": 3})
    ({'weight': 1}, {}, {'weight': 3})
    """
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named):
        raise value_error("from_names", "named must be a dict of leaves by their names", described(named))
    if like is None:
        return build_tree("", named)
    wanted = names(like)
    missing, extra = wanted.keys() - named.keys(), named.keys() - wanted.keys()
    if extra and not missing:
        kept, absent = [named[path] for path in wanted], {path for path, leaf in named_leaves("", like) if leaf is None}
        extra = {path for path in extra if path not in absent or not any(same_leaf(named[path], one) for one in kept)}
    if missing or extra:
        raise value_error(
            "from_names", "the names must be the same as in like", f"missing {sorted(missing)} and unknown {sorted(extra)}"
        )
    return along(lambda path, _: named[path], like)


def update(f: Callable[[Any, Any], Any], params: Tree, grads: Tree) -> Tree:
    """Return ``f(p, g)`` for every parameter with a gradient, and the other parameters unchanged.

        p ← f(p, g)        p unchanged where g is ``None``

    ``update(lambda p, g: p - lr * g, params, grads)`` is a step of plain gradient descent. Running statistics, whose gradients
    are ``None``, stay unchanged.

    Args:
        f: A function of a parameter and its gradient.
        params: A tree of parameters.
        grads: The tree of their gradients.

    Returns:
        The new params.

    Raises:
        ValueError: If the trees disagree; the message names the first path where they do.

    >>> update(lambda p, g: p - g, {"w": 3, "mean": 5}, {"w": 1, "mean": None})
    {'w': 2, 'mean': 5}
    """
    require_function("update", f)
    rows = zip(*flatten_together(params, grads), strict=True)
    return unflatten(params, iter([p if p is None or g is None else f(p, g) for p, g in rows]))


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply ``f(path, leaf)`` to every leaf of a tree; absent leaves stay ``None``.

    Args:
        f: A function of the path, a leaf of ``tree``, and the leaves of ``rest`` at the same path.
        tree: A tree.
        rest: Further trees of the same structure.

    Returns:
        The tree of the results.

    Raises:
        ValueError: If the trees disagree; the message names the first path where they do.

    >>> map_with_path(lambda path, leaf: f"{path}={leaf}", {"a": 1, "b": (2,)})
    {'a': 'a=1', 'b': ('b.0=2',)}
    """
    require_function("map_with_path", f)
    rows = zip(*flatten_together(tree, *rest), strict=True)
    paths = [path for path, _ in named_leaves("", tree)]
    found = [None if any(leaf is None for leaf in row) else f(path, *row) for path, row in zip(paths, rows, strict=True)]
    return unflatten(tree, iter(found))


def reduce(f: Callable[[Any, Any], Any], tree: Tree, initial: Any) -> Any:
    """Fold the leaves of a tree in order.

        value = f(... f(f(initial, leaf₀), leaf₁) ...)

    Args:
        f: A function of the value so far and a leaf.
        tree: A tree.
        initial: The first value.

    Returns:
        The last value.

    >>> reduce(lambda total, leaf: total + leaf, {"a": 1, "b": (2, None, 3)}, 0)
    6
    """
    require_function("reduce", f)
    return functools.reduce(f, leaves(tree), initial)
