"""New tensors: constant, consecutive, or given as literals in the code."""

from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, as_sizes, entries, has_sizes, is_tensor
from funcnet.interop.torch_nn.importing.functions.choosing import type_as, without_gradient
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, UnsupportedError, settled
from funcnet.layers.shape.sources import ConstantTensor


def _register_new(name: str, *functions: Any) -> None:
    """Register a function of sizes."""

    @function(*functions)
    def convert(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **keywords: Any) -> Node:
        sizes = keywords.pop("size", None)
        return _new(name, entries(as_sizes(size) if sizes is None else sizes), dtype=dtype)


def _new(name: str, *arguments: Any, dtype: Any = None) -> Node:
    """Return a new tensor; if nothing depends on sizes, it is a constant that is created once."""
    options = {} if dtype is None else {"dtype": dtype}
    if not has_sizes(arguments) and not any(map(is_tensor, arguments)):
        return constant_node(getattr(torch, name)(*arguments, **options))
    return without_gradient(name, *arguments, **options)


def constant_node(tensor: torch.Tensor) -> Node:
    """Return the node of a tensor that is known when the module is traced."""
    return Node(ConstantTensor.of(tensor), (), numbers=settled(tensor.dtype))


_register_new("zeros", torch.zeros)
_register_new("ones", torch.ones)


@function(torch.full)
def _full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    return _new("full", entries(size), fill_value, dtype=dtype)


@function(torch.arange)
def _arange(*ends: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    return _new("arange", *ends, dtype=dtype)


@function(torch.linspace)
def _linspace(start: Any, end: Any, steps: Any, *, dtype: Any = None, device: Any = None) -> Node:
    return _new("linspace", start, end, steps, dtype=dtype)


@function(torch.eye)
def _eye(*sizes: Any, dtype: Any = None, device: Any = None) -> Node:
    return _new("eye", *sizes, dtype=dtype)


@function(torch.tensor, torch.as_tensor)
def _tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    if has_sizes(data) or is_tensor(data):
        raise UnsupportedError("torch.tensor needs numbers that are known when the module is traced")
    return constant_node(torch.tensor(data, dtype=dtype))


def _register_like(name: str, *fill: Any) -> None:
    @function(getattr(torch, name))
    def convert(input: Tensor, *value: Any, dtype: Any = None, device: Any = None, **keywords: Any) -> Node:
        filled = tuple(keywords[key] for key in ("fill_value",) if key in keywords)
        options = {} if dtype is None else {"dtype": dtype}
        return without_gradient(name, input, *value, *filled, **options)


for _name in ("zeros_like", "ones_like", "full_like"):
    _register_like(_name)


@function("new_tensor")
def _new_tensor(input: Tensor, data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    made = _tensor(data, dtype=dtype)
    return made if dtype is not None else type_as(made, input)


@function("new_zeros")
def _new_zeros(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    return _filled_like(input, as_sizes(size), 0.0, dtype)


@function("new_ones")
def _new_ones(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    return _filled_like(input, as_sizes(size), 1.0, dtype)


@function("new_full")
def _new_full(
    input: Tensor, size: Any, fill_value: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Node:
    return _filled_like(input, size, fill_value, dtype)


def _filled_like(input: Tensor, size: Any, value: Any, dtype: Any) -> Node:
    """Return a constant tensor in the given dtype, by default that of ``input``."""
    made = without_gradient("full", entries(size), value, dtype=torch.float32 if dtype is None else dtype)
    return made if dtype is not None else type_as(made, input)
