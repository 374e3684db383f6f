"""Elements moved and repeated: roll, flip, repeat, windows, and moved axes."""

from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Tensor,
    as_sizes,
    constant,
    entries,
    is_size,
    is_tensor,
    named,
    node,
    sized,
    whole,
)
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError
from funcnet.layers.shape.moving import Flip, MoveDim, RepeatInterleave, Roll, SlidingWindow
from funcnet.layers.shape.reshaping import Flatten
from funcnet.layers.shape.sized_tiling import Tile
from funcnet.layers.shape.triangles import Tril, Triu


def _axes(value: Any) -> Any:
    value = constant(value, "dims")
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


@function(*named("roll"))
def _roll(input: Tensor, shifts: Any, dims: Any = ()) -> Node:
    return node(Roll(_axes(shifts), () if dims in ((), None) else _axes(dims)), input)


@function("flip")
def _flip_method(input: Tensor, *dims: Any) -> Node:
    return node(Flip(_axes(as_sizes(dims))), input)


@function(torch.flip)
def _flip(input: Tensor, dims: Any) -> Node:
    return node(Flip(_axes(dims)), input)


@function(*named("fliplr"))
def _fliplr(input: Tensor) -> Node:
    return node(Flip((1,)), input)


@function(*named("flipud"))
def _flipud(input: Tensor) -> Node:
    return node(Flip((0,)), input)


@function(*named("movedim", "moveaxis"))
def _movedim(input: Tensor, source: Any, destination: Any) -> Node:
    return node(MoveDim(_axes(source), _axes(destination)), input)


@function("repeat")
def _repeat(input: Tensor, *repeats: Any) -> Node:
    return sized(Tile, input, entries(as_sizes(repeats)))


@function(torch.repeat_interleave, "repeat_interleave")
def _repeat_interleave(input: Tensor, repeats: Any, dim: int | None = None, *, output_size: Any = None) -> Node:
    if is_tensor(repeats) or is_size(repeats):
        raise UnsupportedError("the number of repeats must be known when the module is traced")
    if dim is None:
        return node(RepeatInterleave(0, repeats), node(Flatten(0), input))
    return node(RepeatInterleave(whole(dim, "dim"), repeats), input)


@function("unfold")
def _unfold_method(input: Tensor, dimension: int, size: int, step: int) -> Node:
    return node(SlidingWindow(whole(dimension, "dimension"), whole(size, "size"), whole(step, "step")), input)


@function(*named("triu"))
def _triu(input: Tensor, diagonal: int = 0) -> Node:
    return node(Triu(whole(diagonal, "diagonal")), input)


@function(*named("tril"))
def _tril(input: Tensor, diagonal: int = 0) -> Node:
    return node(Tril(whole(diagonal, "diagonal")), input)
