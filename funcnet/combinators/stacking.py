"""Stacks: n trees of one structure as one tree, whose tensors have a first axis of n; and loops along that axis.

Leaves that are no tensors (shapes in caches, absent gradients) have no axis and are the same in all n.
"""

from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.errors import value_error
from funcnet.kernels.looping import entries, is_looping, loop
from funcnet.tree import Tree

LEAST = 4
"""The least number of steps that are compiled as a loop; fewer are written out.

A train step of 4 residual blocks compiles as long in either way, 55 s and 53 s on a busy core, and takes no longer as a loop.
"""


def stack(trees: list[Tree]) -> Tree:
    """Stack the tensors of trees along a new first axis."""
    return tree.map(lambda *leaves: torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *trees)


def restack(values: Tree, old: list[Tree], new: list[Tree]) -> Tree:
    """Stack new entries, but for the tensors of which all entries are the old ones: they stay in their stack."""
    n, columns = len(old), zip(*flattening.flatten_together(values, *old, *new), strict=True)
    leaves = [one if all(map(is_, row[:n], row[n:])) else stack(row[n:]) for one, *row in columns]
    return flattening.unflatten(values, iter(leaves))


def unstack(who: str, values: Tree, n: int) -> list[Tree]:
    """Return the n trees of a stack, as views; a tensor whose first axis is not n raises ``ValueError``."""
    columns = [_entries(who, leaf, n) for leaf in flattening.flatten_together(values)[0]]
    return [flattening.unflatten(values, iter(row)) for row in zip(*columns, strict=True)] if columns else [values] * n


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
    """Put tensors, taken in order, into the places of a tree's tensors."""
    leaves = flattening.flatten_together(like)[0]
    return flattening.unflatten(like, iter([next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]))


Step = Callable[..., tuple[Tree, Tree]]


def looped(step: Step, carry: Tree, *stacks: Tree, n: int, reverse: bool = False) -> tuple[Tree, Tree] | None:
    """Run ``step(carry, *entries) -> (carry, output)`` along stacks as a loop of compiled code.

    The step is traced once by itself too, for the structure of what it returns; compilers drop what nobody uses.

    Returns:
        The last carry and a stack of the outputs. ``None`` where a loop is to be written out: in eager mode, under transforms,
        for few steps, and where the step changes the shape or the dtype of its carry.
    """
    columns = [tensors_of(one) for one in stacks]
    if n < LEAST or not is_looping(*tensors_of(carry), *[leaf for column in columns for leaf in column]):
        return None
    firsts = [entry(one, 0) for one in stacks]
    last, output = step(carry, *firsts)
    if not _alike(carry, last):
        return None

    def body(state: Any, entries: Any) -> Any:
        rest = iter(entries[1:])
        trees = [with_tensors(one, rest) for one in firsts]
        state_tree, out = step(with_tensors(carry, iter(state)), *trees)
        return tensors_of(state_tree), tensors_of(out)

    start = tensors_of(carry)
    numbers = torch.arange(n, device=start[0].device if start else None)  # so that there is an axis where nothing is stacked
    end, outputs = loop(body, start, [numbers, *[leaf for column in columns for leaf in column]], reverse)
    return with_tensors(last, iter(end)), with_tensors(output, iter(outputs))


def _alike(one: Tree, other: Tree) -> bool:
    """Tell whether two trees agree in structure, and their tensors in shape, dtype and device."""
    ones, others = tensors_of(one), tensors_of(other)
    if tree.structure(one) != tree.structure(other) or not len(ones) == len(others) > 0:
        return False
    pairs = zip(ones, others, strict=True)
    return all([a.shape == b.shape and a.dtype is b.dtype and a.device == b.device for a, b in pairs])  # noqa: C419
