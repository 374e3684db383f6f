"""Agreement: params and states must have the same bits on all workers before the first step."""

from collections.abc import Iterator
from itertools import zip_longest

from torch import Tensor

from funcnet.distributed.pieces import pieces_of
from funcnet.distributed.workers import Workers, gather_objects
from funcnet.errors import value_error
from funcnet.flattening import NODES, Tree, join
from funcnet.paths import items
from funcnet.saving.tensors import checksum

Row = tuple[str, str, int]
"""The path of a leaf, its shape and dtype, and a checksum of its bits; or the path and type of a node."""


def require_agreement(workers: Workers, who: str, **trees: Tree) -> None:
    """Raise ``ValueError`` on every worker if a tree differs between workers, with the first path where it does."""
    rows = [row for name, one in trees.items() for row in (*_nodes(name, "", one), *_rows(name, one))]
    first, *others = gather_objects(workers, rows)
    for rank, other in enumerate(others, start=1):
        for one, two in zip_longest(first, other):
            if one != two:
                raise value_error(who, *_difference(one, two, rank))


def _nodes(name: str, path: str, one: Tree) -> Iterator[Row]:
    if isinstance(one, NODES):
        yield _at(name, path), f"a {type(one).__name__} of {len(one)}", 0
        for key, child in items(one):
            yield from _nodes(name, join(path, key), child)


def _at(name: str, path: str) -> str:
    return f"{name} at {path!r}" if path else name


def _rows(name: str, one: Tree) -> Iterator[Row]:
    for path, leaf, shape, _ in pieces_of(one):
        whole = _at(name, path)
        if shape is not None:
            yield whole, f"pieces of shape {tuple(shape)}", 0  # each worker has different ones
        elif not isinstance(leaf, Tensor):
            yield whole, repr(leaf), 0
        elif type(leaf) is not Tensor or leaf.device.type == "meta":
            yield whole, f"{type(leaf).__name__} of shape {tuple(leaf.shape)} and {leaf.dtype}", 0
        else:
            yield whole, f"shape {tuple(leaf.shape)} and {leaf.dtype}", checksum(leaf.detach().cpu().contiguous())


def _difference(one: Row | None, two: Row | None, rank: int) -> tuple[str, str]:
    """Return the rule and the values of the error for two different rows; ``None`` is a missing leaf."""
    where = (one or two or ("",))[0]
    rule = f"params and state must be the same on all workers, and {where} differs"
    if one is None or two is None or one[0] != two[0]:
        have = [f"{row[0]} on rank {r}" if row else f"nothing more on rank {r}" for row, r in ((one, 0), (two, rank))]
        return rule, " and ".join(have)
    if one[1] != two[1]:
        return rule, f"{one[1]} on rank 0 and {two[1]} on rank {rank}"
    return rule, f"different values on rank {rank} than on rank 0"
