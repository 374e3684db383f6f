"""Leaves and subtrees by path, partitions of trees, and trees as one vector."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.errors import PathError, value_error
from funcnet.errors import describe as described
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.paths import child_at, keys_along, named_leaves, replaced
from funcnet.tree.argument_errors import explain_tensor_errors, require_function
from funcnet.tree.mapping import along, leaves, map, names  # noqa: A004 (the usual name)
from funcnet.tree.measuring import size


def at(tree: Tree, path: str) -> Tree:
    """Return the leaf or subtree at a path.

    Args:
        tree: A tree.
        path: Keys and positions, joined with dots: ``"0.weight"``.

    Returns:
        The leaf or subtree.

    Raises:
        LookupError: If the path does not exist; the message lists those that do.

    >>> at(({"weight": 1}, {}), "0")
    {'weight': 1}
    """
    found = tree
    for key in keys_along("at", path):
        found = child_at(found, key, lambda: _no_such_path("at", tree, path))
    return found


def replace(tree: Tree, path: str, value: Tree) -> Tree:
    """Return a tree with the leaf or subtree at a path replaced.

    Args:
        tree: A tree.
        path: Keys and positions, joined with dots: ``"0.weight"``.
        value: The new leaf or subtree.

    Returns:
        The new tree.

    Raises:
        LookupError: If the path does not exist; the message lists those that do.

    >>> replace(({"weight": 1, "bias": 2},), "0.bias", None)
    ({'weight': 1, 'bias': None},)
    """
    return replaced(tree, keys_along("replace", path), value, lambda: _no_such_path("replace", tree, path))


def _no_such_path(who: str, tree: Tree, path: str) -> PathError:
    return PathError(f"{who}: nothing at {path!r}; there are {', '.join(names(tree)) or 'no leaves'}")


def partition(tree: Tree, predicate: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Divide a tree into two of the same structure: the leaves whose path satisfies a predicate, and the others.

    Each tree has ``None`` in place of the leaves of the other. ``combine`` joins them again.

    Args:
        tree: A tree.
        predicate: A function of the path of a leaf.

    Returns:
        The pair of trees.

    >>> params = {"body": {"weight": 1}, "head": {"weight": 2}}
    >>> partition(params, lambda path: path.startswith("body"))
    ({'body': {'weight': 1}, 'head': {'weight': None}}, {'body': {'weight': None}, 'head': {'weight': 2}})
    """
    require_function("partition", predicate)
    chosen = along(lambda path, leaf: leaf if predicate(path) else None, tree)
    rest = along(lambda path, leaf: None if predicate(path) else leaf, tree)
    return chosen, rest


def combine(a: Tree, b: Tree) -> Tree:
    """Join the two trees that ``partition`` returns.

    Args:
        a: A tree.
        b: A tree of the same structure, with ``None`` where ``a`` has a leaf.

    Returns:
        A tree with all leaves of both.

    Raises:
        ValueError: If both trees have a leaf at the same path, or the trees disagree; the message names the first such path.

    >>> combine({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """
    for (path, x), y in zip(named_leaves("", a), flatten_together(a, b)[1], strict=True):
        if x is not None and y is not None:
            raise value_error("combine", "each leaf must be in only one of the trees", f"two at {path!r}")
    return unflatten(a, iter([y if x is None else x for x, y in zip(*flatten_together(a, b), strict=True)]))


@explain_tensor_errors()
def ravel(tree: Tree) -> Tensor:
    """Join all leaves of a tree, in order, into one vector.

    Args:
        tree: A tree of tensors.

    Returns:
        A tensor (elements,); leaves of several dtypes are promoted to their common dtype.

    >>> ravel({"w": torch.ones(1, 2), "b": torch.zeros(1)})
    tensor([1., 1., 0.])
    """
    parts = [leaf.reshape(-1) for leaf in leaves(tree)]
    return torch.cat(parts) if parts else torch.zeros(0)


def unravel(vector: Tensor, like: Tree) -> Tree:
    """Divide a vector into leaves with the shapes and dtypes of a tree.

    ``unravel(ravel(t), t)`` equals ``t`` if the vector's dtype represents its values: with float32, integers up to 2²⁴.

    Args:
        vector: A tensor (elements,).
        like: A tree of tensors with as many elements.

    Returns:
        A tree of the structure of ``like``.

    Raises:
        ValueError: If the vector does not have as many elements as ``like``.

    >>> unravel(torch.tensor([1.0, 2.0, 3.0]), {"w": torch.zeros(1, 2), "b": torch.zeros(1)})
    {'w': tensor([[1., 2.]]), 'b': tensor([3.])}
    """
    if not isinstance(vector, Tensor) or vector.shape != (size(like),):
        raise value_error("unravel", f"the vector must have the {size(like)} elements of like", vector)
    odd = [leaf for leaf in leaves(like) if not isinstance(leaf, Tensor)]
    if odd:
        raise value_error("unravel", "every leaf of like must be a tensor", described(odd[0]))
    pieces = iter(torch.split(vector, [leaf.numel() for leaf in leaves(like)]))
    return map(lambda leaf: next(pieces).reshape(leaf.shape).to(leaf.dtype), like)
