"""Stacks: n trees of one structure as one tree whose tensors have a first axis of n; and loops along that axis.

Leaves other than tensors (shapes in caches, absent gradients) have no such axis and are the same in all n trees.
"""

from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.kernels.large_memory import empty
from funcnet.kernels.looping import entries, is_looping, is_traced, loop
from funcnet.kernels.tracing import is_plain

LEAST = 4
"""The least number of steps that are compiled as a loop; fewer are unrolled.

A train step of 4 residual blocks takes as long to compile either way, 55 s and 53 s on a busy core, and runs as fast as a loop.
"""

_LARGE = 1 << 15


def stack(trees: list[Tree] | tuple[Tree, ...]) -> Tree:
    """Stack the tensors of trees along a new first axis."""
    like = trees[0]
    if isinstance(like, Tensor):
        return torch.stack(trees)
    if not isinstance(like, flattening.NODES):
        return like
    if len({*map(type, trees)}) > 1 or len({*map(len, trees)}) > 1:
        return tree.map(lambda *leaves: leaves, *trees)  # raises an error with the path where they differ
    if isinstance(like, dict):
        return {key: stack([one[key] for one in trees]) for key in like}
    return flattening.rebuild(like, iter([stack(column) for column in zip(*trees, strict=True)]))


class Stack:
    """A stack that is filled with its n trees one by one, in any order.

    Large tensors are copied into the stack as they come, so at most one tree is in memory besides the stack. Forward and backward
    pass of 32 residual blocks of 512 and 1024, whose gradients are 128 MB, then take 70 to 73 ms, and 71 to 95 ms if all
    gradients are kept and stacked at the end. For blocks of 64 and 128 it makes no difference.
    """

    __slots__ = ("columns", "like", "n", "trees")

    columns: list[Any] | None

    def __init__(self, n: int) -> None:
        self.n, self.trees, self.like, self.columns = n, [None] * n, None, None

    def put(self, i: int, values: Tree) -> None:
        """Store tree number i."""
        if self.columns is None:
            self.like, self.columns = values, _columns(values, self.n)
        if not self.columns:
            self.trees[i] = values
            return
        for column, leaf in zip(self.columns, flattening.flatten_together(values)[0], strict=True):
            column[i] = leaf

    def tree(self) -> Tree:
        """Return the stack; all n trees must have been stored."""
        if not self.columns:
            return stack(self.trees)
        return flattening.unflatten(self.like, iter([_join(column) for column in self.columns]))


class _Copied:
    """A stacked tensor into which entries are copied."""

    __slots__ = ("entries", "shape", "stacked")

    def __init__(self, like: Tensor, n: int) -> None:
        self.stacked = empty((n, *like.shape), like)
        self.entries, self.shape = self.stacked.unbind(), like.shape

    def __setitem__(self, i: int, leaf: Tensor) -> None:
        if leaf.shape != self.shape or leaf.dtype is not self.stacked.dtype:
            raise value_error("stack", f"the tensors must all be of shape {tuple(self.shape)} and {self.stacked.dtype}", leaf)
        self.entries[i].copy_(leaf)


def _columns(values: Tree, n: int) -> list[Any]:
    """Return a column for each leaf of trees like this one; no columns if all leaves are small."""
    leaves = flattening.flatten_together(values)[0]
    columns = [_Copied(leaf, n) if _is_large(leaf) else [None] * n for leaf in leaves]
    return columns if _Copied in map(type, columns) else []


def _is_large(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and is_plain(leaf) and leaf.numel() * leaf.element_size() >= _LARGE


def _join(column: Any) -> Any:
    return column.stacked if isinstance(column, _Copied) else stack(column)


def restack(values: Tree, old: list[Tree], new: list[Tree]) -> Tree:
    """Stack new entries, but keep the stacks of tensors whose entries are all unchanged."""
    n, columns = len(old), zip(*flattening.flatten_together(values, *old, *new), strict=True)
    leaves = [one if all(map(is_, row[:n], row[n:])) else stack(row[n:]) for one, *row in columns]
    return flattening.unflatten(values, iter(leaves))


def unstack(who: str, values: Tree, n: int) -> list[Tree]:
    """Return the n trees of a stack, as views. A tensor whose first axis is not n raises ``ValueError``."""
    if not isinstance(values, flattening.NODES):
        return [*_entries(who, values, n)]
    if not values:
        return [values] * n
    children = values.values() if isinstance(values, dict) else values
    rows = zip(*[unstack(who, child, n) for child in children], strict=True)
    if type(values) is dict:
        return [dict(zip(values, row, strict=True)) for row in rows]
    return [*rows] if type(values) is tuple else [flattening.rebuild(values, iter(row)) for row in rows]


def _entries(who: str, leaf: Any, n: int) -> Any:
    if not isinstance(leaf, Tensor):
        return [leaf] * n
    if leaf.dim() == 0 or leaf.shape[0] != n:
        raise value_error(who, f"the first axis of every leaf must be n={n}", leaf)
    return entries(leaf)


def entry(values: Tree, i: int) -> Tree:
    """Return tree number i of a stack."""
    return tree.map(lambda leaf: leaf[i] if isinstance(leaf, Tensor) else leaf, values)


def tensors_of(values: Tree) -> list[Tensor]:
    """List the tensors of a tree."""
    return [leaf for leaf in flattening.flatten_together(values)[0] if isinstance(leaf, Tensor)]


def with_tensors(like: Tree, tensors: Iterator[Tensor]) -> Tree:
    """Replace the tensors of a tree with others, taken in order."""
    leaves = flattening.flatten_together(like)[0]
    return flattening.unflatten(like, iter([next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]))


Step = Callable[..., tuple[Tree, Tree]]


def looped(step: Step, carry: Tree, *stacks: Tree, n: int, reverse: bool = False) -> tuple[Tree, Tree] | None:
    """Run ``step(carry, *entries) -> (carry, output)`` along stacks, as a loop of compiled code.

    The step is also traced once separately, for the structure of what it returns; compilers remove the unused computation.

    Returns:
        The last carry and a stack of the outputs; ``None`` if the loop is to be unrolled: in eager mode, under transforms, for
        few steps, and if the step changes the shape or dtype of its carry.
    """
    if n < LEAST or not is_traced():
        return None
    columns = [tensors_of(one) for one in stacks]
    if not is_looping(*tensors_of(carry), *[leaf for column in columns for leaf in column]):
        return None
    firsts = [entry(one, 0) for one in stacks]
    last, output = step(carry, *firsts)
    if not _are_alike(carry, last):
        return None

    def body(state: Any, entries: Any) -> Any:
        rest = iter(entries[1:])
        trees = [with_tensors(one, rest) for one in firsts]
        state_tree, out = step(with_tensors(carry, iter(state)), *trees)
        return tensors_of(state_tree), tensors_of(out)

    start = tensors_of(carry)
    numbers = torch.arange(n, device=start[0].device if start else None)  # an axis to loop over if there are no stacks
    end, outputs = loop(body, start, [numbers, *[leaf for column in columns for leaf in column]], reverse)
    return with_tensors(last, iter(end)), with_tensors(output, iter(outputs))


def _are_alike(one: Tree, other: Tree) -> bool:
    """Return whether two trees have the same structure, and tensors of the same shapes, dtypes and devices."""
    ones, others = tensors_of(one), tensors_of(other)
    if tree.structure(one) != tree.structure(other) or not len(ones) == len(others) > 0:
        return False
    pairs = zip(ones, others, strict=True)
    return all([a.shape == b.shape and a.dtype is b.dtype and a.device == b.device for a, b in pairs])  # noqa: C419
