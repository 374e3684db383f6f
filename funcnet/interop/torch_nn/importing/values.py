"""Values in a traced forward: tensors by name, sizes of tensors, and the nodes that compute further ones."""

from typing import Any

from attrs import define
from attrs import field as attribute

from funcnet.contract import Layer, Params

Parts = Any
"""The structure of a value: ``None`` for a tensor, a tuple of structures, or ``...`` for any number of tensors in a tuple."""


class UnsupportedError(Exception):
    """The reason why something has no counterpart in funcnet, without the path, which the caller adds."""


@define(frozen=True)
class Ref:
    """The value of a node or an input of the graph, by its name; a parameter has a known shape."""

    name: str
    parts: Parts = None
    shape: tuple[int, ...] | None = None


@define(eq=False)
class Node:
    """A layer to be applied to values; its own value is used like a ``Ref``.

    Args:
        layer: The layer.
        inputs: Its inputs, each a ``Ref`` or another ``Node``. A layer with several gets them as a tuple; one without, ``()``.
        params: Its params.
        parts: The structure of its output.
        shape: The shape of its output, where it is known.
    """

    layer: Layer
    inputs: "tuple[Ref | Node, ...]"
    params: Params = attribute(factory=dict)
    parts: Parts = None
    shape: tuple[int, ...] | None = None


@define(frozen=True)
class Size:
    """``x.shape[axis]``."""

    of: "Ref | Node"
    axis: int


@define(frozen=True)
class Shape:
    """``x.shape[start:stop]``, of which the number of entries is unknown."""

    of: "Ref | Node"
    start: int | None = None
    stop: int | None = None


@define(frozen=True)
class Arithmetic:
    """A number computed from sizes: ``operator.<name>(left, right)``, where a side is a ``Size``, ``Arithmetic`` or a number."""

    name: str
    left: Any
    right: Any


@define(frozen=True)
class Unknown:
    """A value that is not known while tracing, for a reason; assertions may use it, nothing else."""

    reason: str


Number = int | float | Size | Arithmetic


@define(frozen=True)
class Dtype:
    """``x.dtype``."""

    of: "Ref | Node"


def require_value(name: str, value: Any) -> "Ref | Node":
    """Return a value that must be a tensor, or tensors, of the traced code, and no constant."""
    if not isinstance(value, (Ref, Node)):
        raise UnsupportedError(f"{name} must be a tensor that the code gets or computes, got {type(value).__name__}")
    return value
