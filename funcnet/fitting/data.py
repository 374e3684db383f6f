"""The data of a training: rows of tensors, cut into batches."""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.errors import describe, is_whole, value_error
from funcnet.flattening import Tree

COLUMNS = ("epoch", "loss", "seconds")


def take(data: tuple[Tree, Tree], rows: Tensor) -> tuple[Tree, Tree]:
    """Return the rows of x and target."""
    x, target = data
    return tree.map(lambda leaf: leaf[rows], x), tree.map(lambda leaf: leaf[rows], target)


def rows_of_data(data: Any, who: str, name: str = "data") -> int:
    """Return the number of rows, on which all tensors of the data must agree."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise value_error(who, f"{name} must be a tuple (x, target)", describe(data))
    odd = [
        leaf for leaf in tree.leaves(data) if not isinstance(leaf, Tensor) or not leaf.dim() or leaf.layout is not torch.strided
    ]
    x, target = data
    odd += [
        part for part in (x, target) if not tree.leaves(part) and (part is x or part is not None)
    ]  # a loss may need no target
    if odd:
        raise value_error(who, f"{name} must hold dense tensors with one row per example", describe(odd[0]))
    counts = {len(leaf) for leaf in tree.leaves(data)}
    if len(counts) != 1 or counts == {0}:
        got = " and ".join(map(str, sorted(counts))) or "none"
        raise value_error(who, "x and target must have the same number of rows, at least 1", got)
    return counts.pop()


def require(who: str, **kinds: tuple[type, str, Any]) -> None:
    """Raise ``ValueError`` for the first argument of another kind; each comes as (kind, the kind in words, value)."""
    for name, (kind, word, got) in kinds.items():
        if not isinstance(got, kind):
            raise value_error(who, f"{name} must be {word}", describe(got))


def require_whole(who: str, name: str, least: int, got: int) -> None:
    """Raise ``ValueError`` for what is no whole number of at least ``least``."""
    if not is_whole(got) or got < least:
        raise value_error(who, f"{name} must be a whole number of at least {least}", repr(got))
