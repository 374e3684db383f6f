"""Pieces: trees in which each worker has some rows of each leaf, with marks that identify the rows.

    Pieces(tree, rows)     tree   a tree with this worker's rows of each leaf, or None for a leaf without rows here
                           rows   a mark for each divided leaf, an int64 tensor (first row, *shape of the whole leaf);
                                  None for a leaf that all workers hold, such as a count of updates

A state with its marks can be saved and loaded without the optimizer, under the same names as in a single process.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.flattening import NODES, Tree, flatten_together, join, rebuild, unflatten
from funcnet.paths import items, named_leaves


class Pieces(NamedTuple):
    """A tree with this worker's rows of each leaf, and the marks that identify them."""

    tree: Tree
    rows: Tree


class Piece(NamedTuple):
    """This worker's piece of a leaf of a tree."""

    path: str
    """The path of the leaf in the tree without marks."""
    leaf: Any
    """The rows that this worker holds, or ``None``."""
    shape: torch.Size | None
    """The shape of the whole leaf; ``None`` if every worker holds the whole leaf."""
    first: int
    """The first of these rows in the whole leaf."""


def mark(first: int, shape: Sequence[int]) -> Tensor:
    """Return the mark of a piece: its first row, and the shape of the whole leaf."""
    return torch.tensor([first, *shape], dtype=torch.int64)


def pieces_of(tree: Tree) -> list[Piece]:
    """List the leaves of a tree, including ``None``, each with its position in the whole leaf.

    >>> state = {"opt": Pieces({"m": torch.zeros(2, 3), "step": torch.tensor(1)}, {"m": mark(4, (6, 3)), "step": None})}
    >>> [(one.path, one.shape, one.first) for one in pieces_of(state)]
    [('opt.m', torch.Size([6, 3]), 4), ('opt.step', None, 0)]
    """
    return [*_listed("", tree)]


def _listed(path: str, tree: Tree) -> Iterator[Piece]:
    if isinstance(tree, Pieces):
        marks = flatten_together(tree.tree, tree.rows)[1]
        for (name, leaf), one in zip(named_leaves(path, tree.tree), marks, strict=True):
            yield _piece(name, leaf, one)
    elif isinstance(tree, NODES):
        for key, child in items(tree):
            yield from _listed(join(path, key), child)
    else:
        yield Piece(path, tree, None, 0)


def _piece(path: str, leaf: Any, one: Tensor | None) -> Piece:
    if one is None:
        return Piece(path, leaf, None, 0)
    first, *shape = one.tolist()
    return Piece(path, leaf, torch.Size(shape), first)


def with_pieces(tree: Tree, leaves: Sequence[Any]) -> Tree:
    """Replace the leaves of a tree, in the order of ``pieces_of``, and keep its marks."""
    return _filled(tree, iter(leaves))


def _filled(tree: Tree, leaves: Iterator[Any]) -> Tree:
    if isinstance(tree, Pieces):
        return Pieces(unflatten(tree.tree, leaves), tree.rows)
    if isinstance(tree, NODES):
        return rebuild(tree, iter([_filled(child, leaves) for _, child in items(tree)]))
    return next(leaves)
