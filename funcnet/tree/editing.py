"""Single leaves and subtrees by path, trees parted in two, and trees as one vector."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.errors import PathError, value_error
from funcnet.errors import describe as described
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.paths import child_at, keys_along, named_leaves, replaced
from funcnet.tree.arithmetic import size
from funcnet.tree.mapping import along, leaves, map, names  # noqa: A004 (the field's word for it)
from funcnet.tree.refusals import of_tensors, require_function


def at(tree: Tree, path: str) -> Tree:
    """Return the leaf or the subtree of ``tree`` at ``path``.

    >>> at(({"weight": 1}, {}), "0")
    {'weight': 1}

    Raises:
        LookupError: For a path that does not exist; it names those that do.
    """
    found = tree
    for key in keys_along("at", path):
        found = child_at(found, key, lambda: _no_such_path("at", tree, path))
    return found


def replace(tree: Tree, path: str, value: Tree) -> Tree:
    """Return ``tree`` with ``value``, a leaf or a subtree, at ``path``.

    >>> replace(({"weight": 1, "bias": 2},), "0.bias", None)
    ({'weight': 1, 'bias': None},)

    Raises:
        LookupError: For a path that does not exist; it names those that do.
    """
    return replaced(tree, keys_along("replace", path), value, lambda: _no_such_path("replace", tree, path))


def _no_such_path(who: str, tree: Tree, path: str) -> PathError:
    return PathError(f"{who}: nothing at {path!r}; there are {', '.join(names(tree)) or 'no leaves'}")


def partition(tree: Tree, predicate: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Split a tree into two of the same structure: the leaves with ``predicate(path)``, and the others.

    Each has ``None`` in place of the leaves of the other; ``combine`` joins them again.

    >>> params = {"body": {"weight": 1}, "head": {"weight": 2}}
    >>> partition(params, lambda path: path.startswith("body"))
    ({'body': {'weight': 1}, 'head': {'weight': None}}, {'body': {'weight': None}, 'head': {'weight': 2}})
    """
    require_function("partition", predicate)
    chosen = along(lambda path, leaf: leaf if predicate(path) else None, tree)
    rest = along(lambda path, leaf: None if predicate(path) else leaf, tree)
    return chosen, rest


def combine(a: Tree, b: Tree) -> Tree:
    """Join ``a`` and ``b``, the two trees that ``partition`` made.

    Raises   ``ValueError`` with the first path where both trees have a leaf, or where they disagree.
    """
    for (path, x), y in zip(named_leaves("", a), flatten_together(a, b)[1], strict=True):
        if x is not None and y is not None:
            raise value_error("combine", "at each place one tree must have the leaf", f"two at {path!r}")
    return unflatten(a, iter([y if x is None else x for x, y in zip(*flatten_together(a, b), strict=True)]))


@of_tensors()
def ravel(tree: Tree) -> Tensor:
    """Join all leaves of a tree, in order, into one vector; leaves of several dtypes are promoted to their common one."""
    parts = [leaf.reshape(-1) for leaf in leaves(tree)]
    return torch.cat(parts) if parts else torch.zeros(0)


def unravel(vector: Tensor, like: Tree) -> Tree:
    """Cut a vector into leaves with the shapes and dtypes of ``like``.

    ``unravel(ravel(t), t)`` equals ``t`` where the vector's dtype holds its values: integers beside float32 up to 2²⁴.

    Raises   ``ValueError`` for a vector that has not as many elements as ``like``.
    """
    if not isinstance(vector, Tensor) or vector.shape != (size(like),):
        raise value_error("unravel", f"the vector must have the {size(like)} elements of like", vector)
    odd = [leaf for leaf in leaves(like) if not isinstance(leaf, Tensor)]
    if odd:
        raise value_error("unravel", "every leaf of like must be a tensor", described(odd[0]))
    pieces = iter(torch.split(vector, [leaf.numel() for leaf in leaves(like)]))
    return map(lambda leaf: next(pieces).reshape(leaf.shape).to(leaf.dtype), like)
