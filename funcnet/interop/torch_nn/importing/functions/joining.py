"""Tensors joined along an axis, split along an axis, and picked from tuples."""

from typing import Any

import torch
from attrs import define

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Tensor,
    arithmetic,
    has_sizes,
    node,
    refuse_out,
    require_tensor,
    sized,
    whole,
)
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError
from funcnet.layers.operands.picking import Concat, Pick, Stack, Unbind
from funcnet.layers.shape.axes import Unsqueeze
from funcnet.layers.shape.indexing import Chunk, Split
from funcnet.layers.shape.sized_indexing import Narrow


def _operands(tensors: Any) -> tuple[Tensor, ...]:
    if not isinstance(tensors, (tuple, list)):
        raise UnsupportedError("the tensors to join must be a tuple or list whose length is known when the module is traced")
    return tuple(map(require_tensor, tensors))


@function(torch.cat, torch.concat, torch.concatenate)
def _cat(tensors: Any, dim: int = 0, axis: int | None = None, *, out: Any = None) -> Node:
    refuse_out(out)
    return _joined(Concat(whole(dim if axis is None else axis, "dim")), _operands(tensors))


@function(torch.stack)
def _stack(tensors: Any, dim: int = 0, *, out: Any = None) -> Node:
    refuse_out(out)
    return _joined(Stack(whole(dim, "dim")), _operands(tensors))


def _joined(layer: Concat | Stack, tensors: tuple[Tensor, ...]) -> Node:
    """Join several tensors, or a single one, which the layer does not accept in a tuple."""
    if len(tensors) > 1:
        return node(layer, *tensors)
    if not tensors:
        raise UnsupportedError("there must be a tensor to join")
    return tensors[0] if isinstance(layer, Concat) else unsqueezed(tensors[0], layer.dim)  # type: ignore[return-value]


def unsqueezed(x: Tensor, dim: int) -> Node:
    """Return x with an axis of size 1 at ``dim``."""
    return node(Unsqueeze(dim), x)


@function(torch.chunk, "chunk")
def _chunk(input: Tensor, chunks: int, dim: int = 0) -> Node:
    return node(Chunk(whole(chunks, "chunks"), whole(dim, "dim")), input, parts=...)


@function(torch.split, "split", torch.split_with_sizes, "split_with_sizes")
def _split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> Any:
    sizes = split_size_or_sections
    if has_sizes(sizes):
        if isinstance(sizes, (tuple, list)):
            return _sections(tensor, sizes, dim)
        return _Pieces(tensor, sizes, whole(dim, "dim"))
    several = isinstance(sizes, (tuple, list))
    parts: Any = (None,) * len(sizes) if several else ...
    return node(Split(tuple(sizes) if several else sizes, whole(dim, "dim")), tensor, parts=parts)


def _sections(tensor: Tensor, sizes: Any, dim: int) -> Any:
    """Return parts whose sizes depend on shapes, each sliced from the tensor."""
    found, start = [], 0
    for one in sizes:
        found.append(sized(Narrow, tensor, whole(dim, "dim"), start, one))
        start = arithmetic("add", start, one)
    return tuple(found)


@define(frozen=True)
class _Pieces:
    """The parts of a split into an unknown number, with a size that depends on shapes: each is sliced when it is used."""

    tensor: Tensor
    size: Any
    dim: int

    def __getitem__(self, index: Any) -> Node:
        if not isinstance(index, int) or index < 0:
            raise UnsupportedError("parts of a split into an unknown number must be indexed from 0 on")
        return sized(Narrow, self.tensor, self.dim, arithmetic("mul", self.size, index), self.size)


@function(torch.unbind, "unbind")
def _unbind(input: Tensor, dim: int = 0) -> Node:
    return node(Unbind(whole(dim, "dim")), input, parts=...)


def pick(value: Tensor, index: Any) -> Any:
    """Return an entry, or a slice, of a tuple of tensors."""
    if isinstance(index, slice):
        if not isinstance(value.parts, tuple):
            raise UnsupportedError("a tuple of tensors of unknown length cannot be sliced")
        return tuple([pick(value, i) for i in range(len(value.parts))[index]])
    index = whole(index, "the index of a tuple")
    if isinstance(value.parts, tuple) and not -len(value.parts) <= index < len(value.parts):
        raise UnsupportedError(f"a tuple of {len(value.parts)} tensors has no entry {index}")
    parts = value.parts[index] if isinstance(value.parts, tuple) else None
    return Node(Pick(index), (value,), {}, parts, numbers=value.numbers)
