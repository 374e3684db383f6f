"""Indexing: ``x[...]``, and parts of a tensor along an axis."""

import operator
from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Tensor,
    has_sizes,
    is_tensor,
    node,
    sized,
    whole,
)
from funcnet.interop.torch_nn.importing.functions.joining import pick
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError, show_whole
from funcnet.layers.shape.indexing import Index
from funcnet.layers.shape.sized_indexing import GetItem, Narrow
from funcnet.layers.shape.sources import ConstantTensor


@function(operator.getitem, "__getitem__")
def _getitem(input: Any, index: Any) -> Any:
    if not is_tensor(input):
        return input[index]
    if input.parts is not None:
        return pick(input, index)
    parts = tuple([_as_tensor(part, input) for part in (index if isinstance(index, tuple) else (index,))])
    if any(isinstance(part, (list, bool, torch.Tensor)) for part in parts):
        raise UnsupportedError("an index must consist of ints, slices, ..., None and integer tensors computed by the module")
    if any(isinstance(part, slice) and isinstance(part.step, int) and part.step < 1 for part in parts):
        raise UnsupportedError("a slice must have a step above 0")
    show_whole(*parts)
    simple = not any(is_tensor(part) for part in parts) and not has_sizes(parts)
    return node(Index(parts), input) if simple else sized(GetItem, input, parts)


def _as_tensor(part: Any, input: Tensor) -> Any:
    """Convert a list of ints in an index to a tensor."""
    if not isinstance(part, list) or not part or not all(isinstance(one, int) and not isinstance(one, bool) for one in part):
        return part
    return Node(ConstantTensor.of(torch.tensor(part)), (input,), numbers=torch.int64)


@function(torch.narrow, "narrow")
def _narrow(input: Tensor, dim: int, start: Any, length: Any) -> Node:
    return sized(Narrow, input, whole(dim, "dim"), start, length)


def at(input: Tensor, dim: int, part: Any) -> Node:
    """Index the axis ``dim`` of x with ``part``."""
    full = (slice(None),)
    before = full * dim if dim >= 0 else (Ellipsis,)
    return _getitem(input, (*before, part, *full * (-1 - dim if dim < 0 else 0)))  # type: ignore[no-any-return]


@function(torch.select, "select")
def _select(input: Tensor, dim: int, index: Any) -> Node:
    return at(input, whole(dim, "dim"), index)


@function(torch.index_select, "index_select")
def _index_select(input: Tensor, dim: int, index: Tensor) -> Node:
    return at(input, whole(dim, "dim"), index)
