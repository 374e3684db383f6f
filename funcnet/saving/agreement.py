"""Compare the tree of a file with the expected tree, ``like``, and report all differences in one error."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Size, Tensor

from funcnet.errors import describe, value_error
from funcnet.flattening import NODES, Tree, join
from funcnet.paths import items
from funcnet.saving.tensors import DTYPES, Stored

MOST_LISTED = 20
"""Number of differences that an error lists; the others are only counted."""


def entries(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each leaf and each empty node."""
    if isinstance(tree, NODES) and len(tree):
        for key, child in items(tree):
            yield from entries(child, join(path, key))
    else:
        yield path, tree


def named_entries(who: str, tree: Tree) -> dict[str, Any]:
    """Map paths to the leaves and empty nodes of a tree; each path must be unique."""
    pairs = [*entries(tree)]
    named = dict(pairs)
    if len(named) < len(pairs):
        paths = [path for path, _ in pairs]
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise value_error(who, "the paths of the leaves must be unique", f"{twice!r} twice")
    return named


def empty_entries(tree: Tree) -> dict[str, Any]:
    """Map paths to the ``None`` leaves and empty nodes of a tree, which a flat file of tensors cannot contain."""
    return {path: leaf for path, leaf in entries(tree) if leaf is None or isinstance(leaf, NODES)}


def kinds(tree: Tree, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each non-empty node, and a description of its kind."""
    if isinstance(tree, NODES) and len(tree):
        yield path, kind_of(tree)
        for key, child in items(tree):
            yield from kinds(child, join(path, key))


def kind_of(node: Tree) -> str:
    """Describe the kind of a node; an ordered dict counts as a dict, and a named tuple is described by its fields."""
    if isinstance(node, dict):
        return "a dict"
    if hasattr(node, "_fields"):
        return f"a named tuple of the fields {', '.join(node._fields)}"
    return "a torch.Size" if type(node) is Size else "a tuple" if isinstance(node, tuple) else "a list"


def describe_entry(leaf: Any) -> str:
    """Describe a leaf or empty node in a few words."""
    if isinstance(leaf, NODES):
        return f"{kind_of(leaf)} without entries"
    if isinstance(leaf, (Stored, Tensor)):
        return str(leaf) if isinstance(leaf, Stored) else describe(leaf)
    return f"the {type(leaf).__name__} {describe(leaf)[:60]}" if leaf is not None else "None"


def alike(found: Any, leaf: Any) -> bool:
    """Return whether a value of a file matches a leaf: a tensor by dtype and shape, anything else by type."""
    if isinstance(leaf, Tensor) and isinstance(found, (Stored, Tensor)):
        dtype = DTYPES[found.dtype] if isinstance(found, Stored) else found.dtype
        return dtype is leaf.dtype and tuple(found.shape) == tuple(leaf.shape)
    if isinstance(leaf, NODES) and isinstance(found, NODES):
        return kind_of(found) == kind_of(leaf)
    return type(found) is type(leaf)


def differences(found: dict[str, Any], wanted: dict[str, Any], *, partial: bool) -> Iterator[str]:
    """Yield a description of each difference between two trees; with ``partial``, only of differences at common paths."""
    for path, leaf in wanted.items():
        if path not in found and not partial:
            yield f"missing {path!r}: {describe_entry(leaf)}"
        elif path in found and not alike(found[path], leaf):
            yield f"different {path!r}: {describe_entry(found[path])} instead of {describe_entry(leaf)}"
    for path in [] if partial else [path for path in found if path not in wanted]:
        yield f"extra {path!r}: {describe_entry(found[path])}"


def agreeing(
    found: dict[str, Any], nodes: dict[str, str], like: Tree, where: str, *, partial: bool, who: str = "load"
) -> dict[str, Any]:
    """Return the values of a file at the paths of ``like``; a ``ValueError`` lists all differences.

    Args:
        found: The leaves and empty nodes of the file, by path.
        nodes: The kinds of the other nodes of the file, by path.
        like: The expected tree.
        where: The path of the file.
        partial: Whether paths are allowed to be missing or extra.
        who: The name of the function in errors.
    """
    wanted = named_entries(who, like)
    words = [*differences(found, wanted, partial=partial)]
    words += [
        f"different {path!r}: {nodes[path]} instead of {kind}" for path, kind in kinds(like) if nodes.get(path, kind) != kind
    ]
    common = {path: found[path] for path in wanted if path in found}
    if partial and not common and not words:
        words = ["no path in common"]
    if words:
        listed = words[:MOST_LISTED] + [f"and {len(words) - MOST_LISTED} more"] * (len(words) > MOST_LISTED)
        rule = f"{where!r} must hold {'leaves' if partial else 'the leaves'} of like"
        rule += " (rename={path: None} leaves out one that differs)" * (partial and any(path in found for path in wanted))
        raise value_error(who, rule, f"{len(words)} difference{'s' * (len(words) > 1)}:\n  " + "\n  ".join(listed))
    return common


def mapped(take: Callable[[str, Any], Any], tree: Tree, path: str = "") -> Tree:
    """Replace every leaf, including ``None``, with ``take(path, leaf)``; nodes keep their classes."""
    if not isinstance(tree, NODES):
        return take(path, tree)
    kind: Any = type(tree)
    children = [mapped(take, child, join(path, key)) for key, child in items(tree)]
    if isinstance(tree, dict):
        pairs = zip(tree, children, strict=True)
        return OrderedDict(pairs) if isinstance(tree, OrderedDict) else dict(pairs)
    return kind._make(children) if hasattr(tree, "_fields") else kind(children)


def conformed(who: str, tree: Tree, like: Tree, where: str) -> Tree:
    """Return a tree with the nodes and devices of ``like``; a ``ValueError`` lists all differences."""
    common = agreeing(named_entries(who, tree), dict(kinds(tree)), like, where, partial=False, who=who)

    def take(path: str, leaf: Any) -> Any:
        found = common[path]
        return found.to(leaf.device) if isinstance(leaf, Tensor) else found

    return mapped(take, like)
