"""Columns: the leaves of params, gradients and moments side by side, and the checks that precede a step.

A step reads and writes lists of tensors with kernels that would broadcast, promote, or stop halfway. Everything is therefore
checked before anything is written, once for each kind of columns: the result is remembered as a guard of dtypes, devices, shapes
and strides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, strided

from funcnet import flattening
from funcnet.codec import TreeCodec
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import is_writable, overlapping, plain
from funcnet.kernels.optim_steps import in_rows
from funcnet.kernels.tracing import any_nested, is_eager, tensor_guard

Columns = Sequence[Sequence[Tensor]]
"""Lists of tensors for the same leaves of params: params, gradients, then the moments."""

Shapes = Callable[[int, torch.Size], Sequence[int]]
"""A function of the number of a moment and the shape of a parameter that returns the shape of the moment."""

Write = Callable[[Sequence[Any]], Tree]

# Several nets or groups of params can alternate and still find their guards; trying 8 guards in vain takes 1.5 µs.
GUARDS = 8


class CheckedColumns:
    """The record of columns that passed the checks: their guard, whether any are in half precision, and whether all are in rows.

    ``places`` maps the addresses of params and moments that share no memory, in order, to the set of these addresses, where empty
    tensors are left out. Only donated steps need it.
    """

    __slots__ = ("count", "guard", "half", "in_rows", "places")

    def __init__(self, columns: Columns, tensors: list[Tensor] | None) -> None:
        self.count = len(tensors or ())
        self.guard: Callable[..., bool] | None = tensor_guard(tensors) if tensors else None
        self.half, self.in_rows = kernels.any_half(columns[0]), tensors is not None and in_rows(columns)
        self.places: dict[tuple[int, ...], frozenset[int]] = {}

    def is_apart(self, columns: Columns) -> bool:
        """Return whether params and moments are known to share no memory, and no gradient begins at one of their addresses.

        It takes 0.1 µs per tensor.
        """
        written = self.places.get(_places(columns))
        return written is not None and written.isdisjoint(map(Tensor.data_ptr, columns[1]))


def _places(columns: Columns) -> tuple[int, ...]:
    """Return the addresses of all tensors except the gradients, the second column."""
    return tuple([place for i, column in enumerate(columns) if i != 1 for place in map(Tensor.data_ptr, column)])


class GuardCache:
    """A cache of the structures and columns that an optimizer saw last, as codecs and guards. Copies and pickles are empty.

    Its contents are replaced, never modified: threads can share an optimizer.
    """

    __slots__ = ("codecs", "guards")

    codecs: tuple[tuple[TreeCodec, TreeCodec], ...]
    guards: tuple[CheckedColumns, ...]

    def __init__(self) -> None:
        self.codecs, self.guards = (), ()

    def __reduce__(self) -> tuple[Any, ...]:
        return GuardCache, ()

    def flatten(self, trees: tuple[Tree, ...]) -> tuple[list[list[Any]], Write]:
        """Return the leaves of trees of the same structure, and a function that makes a tree from leaves.

        Three trees of eight leaves take 1.5 µs with the code that a codec generates, and 2.7 µs node by node; building two trees
        takes 0.6 and 2.0 µs.
        """
        is_known = is_eager()
        for first, others in self.codecs if is_known else ():
            try:
                return [first.read(trees[0]), *[others.read(tree) for tree in trees[1:]]], first.write
            except LookupError:
                continue
        columns = flattening.flatten_together(*trees)
        if is_known and len(self.codecs) < GUARDS:  # keys get the order of the first tree
            self.codecs = (*self.codecs, (TreeCodec(trees[0], ordered=True), TreeCodec(trees[0])))
        return columns, lambda column: flattening.unflatten(trees[0], iter(column))

    def find(self, columns: Columns, step: Tensor | None = None) -> CheckedColumns | None:
        """Return the record of columns like these; ``None`` if they must be checked. Nested tensors would crash the guards."""
        tensors = [] if step is None else [step]
        for column in columns:
            tensors += column
        # Dynamo must not see the guards: it would retrace whenever they change.
        if not is_eager() or not self.guards or any_nested(tensors):
            return None
        count = len(tensors)
        for known in self.guards:
            if known.count == count and known.guard and known.guard(*tensors):
                return known
        return None

    def check(
        self, columns: Columns, step: Tensor | None, donated: bool, shapes: Shapes | None = None
    ) -> tuple[Columns, CheckedColumns]:
        """Return columns that are ready for a step, and their record; raise ``LookupError`` if they do not fit.

        Columns that need no conversion are remembered.
        """
        if not agree(columns, shapes) or not (step is None or is_count(step)):
            raise LookupError
        if not is_eager():
            return columns, CheckedColumns(columns, None)
        steps = [] if step is None else [step]
        tensors = [*steps, *[x for column in columns for x in column]]
        ready = _ready(columns, steps, donated)
        if ready is not columns or any([type(x) is not Tensor for x in tensors]):  # noqa: C419
            return ready, CheckedColumns(ready, None)
        return columns, self._learn(columns, step, tensors, donated)

    def require_apart(self, columns: Columns, step: Tensor | None, shapes: Shapes | None = None) -> None:
        """Raise ``LookupError`` unless params and moments agree and no two elements that will be written share memory."""
        rows = [row for row in zip(*columns, strict=True) if is_dense(row[0])]
        if not rows:
            if step is not None and not (is_count(step) and is_writable(step)):
                raise LookupError
            return
        columns = [[*column] for column in zip(*rows, strict=True)]
        beside: Columns = [columns[0], [], *columns[1:]]  # without gradients
        known = self.find(beside, step)
        if known is not None and known.is_apart(beside):
            return
        if not agree([columns[0], *columns], shapes) or not (step is None or is_count(step)):
            raise LookupError
        written = [x for column in ([] if step is None else [step], *columns) for x in column]
        if not all(map(is_writable, written)) or overlapping(written):
            raise LookupError
        if all([type(x) is Tensor for x in written]):  # noqa: C419
            self._learn(beside, step, written, donated=True)

    def _learn(self, columns: Columns, step: Tensor | None, tensors: list[Tensor], donated: bool) -> CheckedColumns:
        known = self.find(columns, step)
        if known is None:
            known = CheckedColumns(columns, tensors)
            self.guards = (known, *self.guards[: GUARDS - 1])
        if donated:
            places = _places(columns)
            known.places = {places: frozenset(places) - {0}, **dict([*known.places.items()][: GUARDS - 1])}
        return known


def agree(columns: Columns, shapes: Shapes | None = None) -> bool:
    """Return whether layout, shape, dtype and device agree in every row; otherwise kernels would broadcast or promote."""
    for p, g, *moments in zip(*columns, strict=True):
        if not is_dense(p) or not _is_like(g, p, p.dtype, p.shape):
            return False
        dtype = kernels.wide(p.dtype)
        for i, x in enumerate(moments):
            if not _is_like(x, p, dtype, p.shape if shapes is None else shapes(i, p.shape)):
                return False
    return True


def _is_like(x: Tensor, p: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> bool:
    return not x.is_nested and x.shape == tuple(shape) and x.dtype is dtype and x.device == p.device and x.layout is strided


def is_dense(leaf: Any) -> bool:
    """Return whether optimizers step a leaf of params: a dense tensor of 16, 32 or 64 floating bits."""
    return isinstance(leaf, Tensor) and leaf.dtype in kernels.DTYPES and leaf.layout is strided and not leaf.is_nested


def moment_like(p: Tensor) -> Tensor:
    """Return the initial moment of a parameter: zeros, in float32 for half precision."""
    return torch.zeros_like(p, dtype=kernels.wide(p.dtype))


def is_count(step: Any) -> bool:
    """Return whether a value is a count of updates."""
    return isinstance(step, Tensor) and step.dim() == 0 and step.dtype is torch.int64


def is_scalar(number: Any) -> bool:
    """Return whether a value is one of the scalars in a state."""
    return isinstance(number, Tensor) and number.dim() == 0 and number.dtype is torch.float64


def replaced(column: Sequence[Any], places: Sequence[int], new: Sequence[Any]) -> list[Any]:
    """Return a copy of a column with new entries in some places."""
    column = list(column)
    for i, x in zip(places, new, strict=True):
        column[i] = x
    return column


def _materialize(x: Tensor) -> Tensor:
    """Make a tensor contiguous if all its strides are 0: kernels round a broadcast number differently."""
    return x if x.numel() < 2 or any(x.stride()) else x.contiguous()


def _ready(columns: Columns, steps: list[Tensor], donated: bool) -> Columns:
    """Replace the tensors that a kernel cannot use; return ``columns`` itself if there are none.

    A gradient that shares memory with a written tensor is copied, since every element must be read before it is written.
    """
    ready = [[_materialize(plain(x)) for x in column] for column in columns]
    if donated:
        written = [*steps, *[x for column in (columns[0], *columns[2:]) for x in column]]
        if not all(map(is_writable, written)) or overlapping(written):
            raise LookupError
        shared = overlapping([*written, *ready[1]])
        ready[1] = [g.clone() if i in shared else g for i, g in enumerate(ready[1], len(written))]
    pairs = [pair for both in zip(columns, ready, strict=True) for pair in zip(*both, strict=True)]
    return columns if all(x is y for x, y in pairs) else ready
