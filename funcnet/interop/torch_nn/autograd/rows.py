"""Rows: the tensors of trees as a flat sequence, which autograd requires, and the structures that rebuild the trees."""

from collections.abc import Sequence
from typing import Any

from attrs import define
from torch import Tensor

from funcnet.codec import TreeCodec
from funcnet.flattening import NODES, Tree, flatten_like, flatten_together, unflatten
from funcnet.kernels.tracing import is_eager

Row = Sequence[Any]
"""Tensors, and ``None`` for absent ones."""

_MOST_CODECS = 16


class Skeleton:
    """The structure of a tree: ``read`` lists the leaves of such a tree, and ``write`` builds one."""

    __slots__ = ("tree",)

    def __init__(self, tree: Tree) -> None:
        leaves = [leaf if type(leaf) is int else None for leaf in flatten_together(tree)[0]]  # a torch.Size holds only ints
        self.tree = unflatten(tree, iter(leaves))

    def read(self, tree: Tree) -> list[Any]:
        """List the leaves; raise ``LookupError`` for a tree of another structure."""
        return flatten_like(self.tree, tree)

    def write(self, leaves: Row) -> Tree:
        """Build a tree from leaves."""
        return unflatten(self.tree, iter(leaves))


class OneTensor:
    """The structure of a single tensor, the most common for x and y."""

    __slots__ = ()

    def read(self, tree: Tree) -> list[Any]:
        """List the tensor; raise ``LookupError`` for a tree of several tensors."""
        if isinstance(tree, NODES):
            raise LookupError
        return [tree]

    def write(self, leaves: Row) -> Tree:
        """Return the tensor."""
        return leaves[0]


Structure = Skeleton | OneTensor | TreeCodec
ONE_TENSOR = OneTensor()


@define(eq=False)
class Shape:
    """A structure, and the leaves that are not tensors, which are kept outside the row; ``None`` if all are tensors."""

    structure: Structure
    constants: list[Any] | None

    def write(self, row: Row) -> Tree:
        """Build a tree from a row."""
        if self.constants is None:
            return self.structure.write(row)
        return self.structure.write([own if leaf is None else leaf for own, leaf in zip(self.constants, row, strict=True)])


def to_row(tree: Tree, structure: Structure | None = None) -> tuple[Shape, list[Any]]:
    """Return the shape of a tree and its row."""
    if isinstance(tree, Tensor):
        return LONE, [tree]
    structure = structure or Skeleton(tree)
    leaves = structure.read(tree)
    row = [leaf if isinstance(leaf, Tensor) else None for leaf in leaves]
    has_constants = any([a is not b for a, b in zip(leaves, row, strict=True)])  # noqa: C419 (compiled code has no generators)
    constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves] if has_constants else None
    return Shape(structure, constants), row


LONE = Shape(ONE_TENSOR, None)
"""The shape of a single tensor."""


_TENSORS = {Tensor}


@define(eq=False)
class Memory:
    """The structure of recent trees, as generated code: a tree of 7 tensors is flattened and rebuilt in 1.5 µs instead of 9."""

    shape: Shape | None = None
    made: int = 0

    def to_row(self, tree: Tree) -> tuple[Shape, list[Any]]:
        """Return the shape of a tree and its row; if the structure keeps changing, no more code is generated."""
        if not is_eager() or isinstance(tree, Tensor) or self.made > _MOST_CODECS:
            return to_row(tree)
        shape = self.shape or self._shape_of(tree)
        try:
            leaves = shape.structure.read(tree)
        except LookupError:
            shape = self._shape_of(tree)
            leaves = shape.structure.read(tree)
        return (shape, leaves) if _TENSORS.issuperset(map(type, leaves)) else to_row(tree, shape.structure)

    def _shape_of(self, tree: Tree) -> Shape:
        self.shape, self.made = Shape(TreeCodec(tree), None), self.made + 1
        return self.shape


def detached(row: Row) -> list[Any]:
    """Return the row detached from autograd: kernels use slower formulas for tensors that require gradients."""
    return [
        leaf.detach() if isinstance(leaf, Tensor) and (leaf.requires_grad or type(leaf) is not Tensor) else leaf for leaf in row
    ]


def placed(row: Row, places: Sequence[int], leaves: Row) -> list[Any]:
    """Return the row with some leaves replaced."""
    found = dict(zip(places, leaves, strict=True))
    return [found.get(i, leaf) for i, leaf in enumerate(row)]


def cut(tensors: Row, first: int, second: int) -> tuple[Row, Row, Row]:
    """Split a row in three; the first two parts have the given lengths."""
    return tensors[:first], tensors[first : first + second], tensors[first + second :]
