"""Functions and methods that rearrange the axes of a tensor."""

from functools import reduce
from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Tensor,
    as_sizes,
    constant,
    entries,
    has_sizes,
    named,
    node,
    sized,
    whole,
)
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, Shape, UnsupportedError
from funcnet.layers.shape.axes import Permute, Squeeze, Transpose, Unsqueeze
from funcnet.layers.shape.reshaping import Flatten, Unflatten
from funcnet.layers.shape.sized import Expand, View


@function("view", "reshape", "_unsafe_view")
def _view(input: Tensor, *shape: Any) -> Node:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise UnsupportedError("a view of the bytes in another dtype has no gradient and no layer")
    return sized(View, input, entries(as_sizes(shape)))


@function(torch.reshape)
def _reshape(input: Tensor, shape: Any) -> Node:
    return sized(View, input, entries(shape))


@function("view_as", "reshape_as")
def _view_as(input: Tensor, other: Tensor) -> Node:
    return sized(View, input, (Shape(other),))


@function(torch.flatten, "flatten")
def _flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Node:
    return node(Flatten(whole(start_dim, "start_dim"), whole(end_dim, "end_dim")), input)


@function("ravel", torch.ravel)
def _ravel(input: Tensor) -> Node:
    return _flatten(input)


@function(torch.unflatten, "unflatten")
def _unflatten(input: Tensor, dim: int, sizes: Any) -> Node:
    if not has_sizes(sizes):
        return node(Unflatten(whole(dim, "dim"), tuple(sizes)), input)
    after = (Shape(input, dim + 1),) if dim != -1 else ()
    return sized(View, input, (Shape(input, None, dim), *entries(sizes), *after))


@function(torch.squeeze, "squeeze", "squeeze_")
def _squeeze(input: Tensor, dim: Any = None) -> Node:
    if dim is None:
        raise UnsupportedError("squeeze without dim removes axes that depend on the shape; name the axis, squeeze(dim)")
    dims = sorted(dim if isinstance(dim, (tuple, list)) else [whole(dim, "dim")])
    if len(dims) > 1 and dims[0] < 0 <= dims[-1]:
        raise UnsupportedError(f"the axes of squeeze must all be counted from one end, got {dims}")
    return reduce(lambda x, d: node(Squeeze(d), x), dims if dims[0] < 0 else reversed(dims), input)  # type: ignore[return-value]


@function(torch.unsqueeze, "unsqueeze", "unsqueeze_")
def _unsqueeze(input: Tensor, dim: int) -> Node:
    return node(Unsqueeze(whole(dim, "dim")), input)


@function("permute")
def _permute_method(input: Tensor, *dims: Any) -> Node:
    return node(Permute(tuple(constant(as_sizes(dims), "dims"))), input)


@function(torch.permute)
def _permute(input: Tensor, dims: Any) -> Node:
    return node(Permute(tuple(constant(dims, "dims"))), input)


@function(*named("transpose", "swapaxes", "swapdims"))
def _transpose(input: Tensor, dim0: int, dim1: int) -> Node:
    return node(Transpose(whole(dim0, "dim0"), whole(dim1, "dim1")), input)


@function("swapaxes", torch.swapaxes)
def _swapaxes(input: Tensor, axis0: int, axis1: int) -> Node:
    return _transpose(input, axis0, axis1)


@function(*named("t"), "T")
def _t(input: Tensor) -> Node:
    return node(Permute((1, 0)), input)


@function(torch.adjoint, "adjoint", "mT", "mH")
def _adjoint(input: Tensor) -> Node:
    return node(Transpose(-2, -1), input)


@function("expand")
def _expand(input: Tensor, *sizes: Any, implicit: bool = False) -> Node:
    return sized(Expand, input, entries(as_sizes(sizes)))


@function(torch.broadcast_to, "broadcast_to")
def _broadcast_to(input: Tensor, size: Any) -> Node:
    return sized(Expand, input, entries(size))


@function("expand_as")
def _expand_as(input: Tensor, other: Tensor) -> Node:
    return sized(Expand, input, (Shape(other),))
