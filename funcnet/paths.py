"""Paths: name the leaves of a tree by dotted paths, and find, replace and build nodes along these."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase, translate
from typing import Any

from funcnet.errors import describe, value_error
from funcnet.flattening import NODES, Tree, join, rebuild


def items(tree: Tree) -> list[tuple[str, Tree]]:
    """List the children of a node by name."""
    return [(str(key), child) for key, child in (tree.items() if isinstance(tree, dict) else enumerate(tree))]


def named_leaves(path: str, tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield the path of each leaf of the tree at ``path``, and the leaf, including ``None``."""
    if isinstance(tree, NODES):
        for key, child in items(tree):
            yield from named_leaves(join(path, key), child)
    else:
        yield path, tree


def build_tree(at: str, named: dict[str, Any]) -> Tree:
    """Build the tree at the path ``at`` from the leaves below it, named by the rest of their paths."""
    if "" in named:
        if len(named) > 1:
            raise value_error("from_names", "no path may continue below a leaf", f"{at!r} and also {sorted(named)[1]!r} below it")
        return named[""]
    groups: dict[str, dict[str, Any]] = {}
    for path, leaf in named.items():
        head, _, tail = path.partition(".")
        groups.setdefault(head, {})[tail] = leaf
    grown = {head: build_tree(join(at, head), group) for head, group in groups.items()}
    if not grown or not all(head.isdecimal() and head == str(int(head)) for head in grown):
        return grown
    return tuple(grown.get(str(i), {}) for i in range(1 + max(map(int, grown))))


def keys_along(who: str, path: str) -> list[str]:
    """Return the keys along a path; raise in the name of ``who`` if it is not a ``str``."""
    if not isinstance(path, str):
        raise value_error(who, "path must be a str, names joined by dots", describe(path))
    return path.split(".") if path else []


def replaced(tree: Tree, keys: list[str], value: Tree, error: Callable[[], Exception]) -> Tree:
    """Return the tree with ``value`` at the end of ``keys``; raise ``error()`` if they lead nowhere."""
    if not keys:
        return value
    child = replaced(child_at(tree, keys[0], error), keys[1:], value, error)
    return rebuild(tree, iter([child if str(key) == keys[0] else old for key, old in items(tree)]))


def child_at(tree: Tree, key: str, error: Callable[[], Exception]) -> Tree:
    """Return the child of a node under a key, compared as text; raise ``error()`` if there is none."""
    found = [child for one, child in items(tree) if str(one) == key] if isinstance(tree, NODES) else []
    if not found:
        raise error()
    return found[0]


def matches(path: str, pattern: str) -> bool:
    """Return whether a pattern with ``*``, ``?`` and ``[]`` matches a path; ``"*.bias"`` matches ``"bias"`` too."""
    return fnmatchcase(path, pattern) or fnmatchcase(f".{path}", pattern)


matches._dynamo_marked_constant = True  # type: ignore[attr-defined]  # fnmatch has a cache, which Dynamo cannot trace


def renamed(path: str, pattern: str, new: str) -> str | None:
    """Return ``new`` with each ``*`` replaced by what the same ``*`` of ``pattern`` matches; ``None`` without a match.

    Each ``*`` matches as little as possible; the last one matches the rest.

    >>> renamed("old.0.weight", "old.*.weight", "new.*.w")
    'new.0.w'
    """
    pieces = [piece for piece in re.split(r"(\*|\[!?\]?[^]]*\])", pattern) if piece]
    regex = re.compile("".join(["(?s:(.*?))" if piece == "*" else translate(piece)[:-2] for piece in pieces]))  # without the \Z
    found = regex.fullmatch(path)
    before = "" if found else "."  # as in ``matches``
    found = found or regex.fullmatch(f".{path}")
    if found is None:
        return None
    stars = iter(found.groups())
    return re.sub(r"\*", lambda star: next(stars), new).removeprefix(before)
