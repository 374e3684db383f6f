"""Values in a traced forward: tensors by name, sizes of tensors, and nodes that compute further values."""

from contextvars import ContextVar
from typing import Any

import torch
from attrs import define
from attrs import field as attribute

from funcnet.contract import Layer

Parts = Any
"""The structure of a value: ``None`` for a tensor, a tuple of structures, or ``...`` for a tuple of any number of tensors."""


class UnsupportedError(Exception):
    """The reason why code has no counterpart in funcnet; the caller adds the path."""


@define(eq=False)
class Undecided:
    """The kind of numbers in an input of the net: whole if a use, such as an embedding lookup, requires it, else floating."""

    are_whole: bool = False


Numbers = torch.dtype | Undecided | None
"""The kind of numbers in a tensor; ``None`` for floating numbers in the dtype of the module's params, ``PRECISION``."""

PRECISION: ContextVar[torch.dtype | None] = ContextVar("PRECISION", default=None)


def precision() -> torch.dtype:
    """Return the dtype of the converted module's floating params, or torch's default if there are none."""
    return PRECISION.get() or torch.get_default_dtype()


def settled(dtype: torch.dtype) -> Numbers:
    """Return the kind of numbers in a tensor of a dtype."""
    return None if dtype == precision() else dtype


def is_whole(numbers: Numbers) -> bool:
    """Return whether numbers are known to be integers or booleans."""
    if isinstance(numbers, Undecided):
        return numbers.are_whole
    return numbers is not None and not numbers.is_floating_point and not numbers.is_complex


def promoted(a: Numbers, b: Numbers) -> Numbers:
    """Return the kind of numbers that torch computes from two kinds."""
    return a if a is b else settled(torch.promote_types(dtype_of(a), dtype_of(b)))


def dtype_of(numbers: Numbers) -> torch.dtype:
    """Return a dtype for numbers."""
    if isinstance(numbers, Undecided):
        return torch.int64 if numbers.are_whole else precision()
    return numbers or precision()


def show_whole(*values: Any) -> None:
    """Record that tensors hold whole numbers, because a use requires it."""
    for one in values:
        if isinstance(one, (Ref, Node)) and isinstance(one.numbers, Undecided):
            one.numbers.are_whole = True


class InlineError(UnsupportedError):
    """Raised for a module, given by its path, that must be traced inline."""

    def __init__(self, path: str, reason: UnsupportedError) -> None:
        super().__init__(str(reason))
        self.path = path


@define(frozen=True)
class Ref:
    """The value of a node or an input of the graph, by its name; a parameter has a known shape."""

    name: str
    parts: Parts = None
    shape: tuple[int, ...] | None = None
    numbers: Numbers = None


@define(eq=False)
class Node:
    """A layer that is applied to values; its result is used like a ``Ref``.

    Args:
        layer: The layer.
        inputs: Its inputs, each a ``Ref`` or another ``Node``. A layer gets several inputs as a tuple, and no inputs as ``()``.
        params: Its params.
        parts: The structure of its output.
        shape: The shape of its output, if known.
        numbers: The kind of numbers in its output.
    """

    layer: Layer
    inputs: "tuple[Ref | Node, ...]"
    params: Any = attribute(factory=dict)
    parts: Parts = None
    shape: tuple[int, ...] | None = None
    numbers: Numbers = None


@define(frozen=True)
class Size:
    """``x.shape[axis]``."""

    of: "Ref | Node"
    axis: int


@define(frozen=True)
class Shape:
    """``x.shape[start:stop]``, with an unknown number of entries."""

    of: "Ref | Node"
    start: int | None = None
    stop: int | None = None


@define(frozen=True)
class Axes:
    """``x.ndim - less``."""

    of: "Ref | Node"
    less: int = 0


@define(frozen=True)
class Ones:
    """``(1,) * (x.ndim - less)``."""

    of: "Ref | Node"
    less: int


@define(frozen=True)
class Arithmetic:
    """A number computed from sizes: ``operator.<name>(left, right)``, where a side is a ``Size``, ``Arithmetic`` or a number."""

    name: str
    left: Any
    right: Any


@define(frozen=True)
class Unknown:
    """A value that is unknown while tracing, with the reason; only assertions can use it."""

    reason: str


Number = int | float | Size | Arithmetic


@define(frozen=True)
class Dtype:
    """``x.dtype``."""

    of: "Ref | Node"


def require_value(name: str, value: Any) -> "Ref | Node":
    """Return a value that must be a tensor, or tensors, of the traced code instead of a constant."""
    if not isinstance(value, (Ref, Node)):
        raise UnsupportedError(f"{name} must be a tensor that the code gets or computes, got {type(value).__name__}")
    return value
