"""Random tensors: the same distributions, sampled with a key."""

from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import Inputs, Tensor, as_sizes, entries, require_tensor
from funcnet.interop.torch_nn.importing.functions.choosing import without_gradient
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, Shape, UnsupportedError, settled
from funcnet.layers.noise.random_tensor import RandomTensor
from funcnet.layers.shape.casting import Cast


def _drawn(distribution: str, shape: Any, dtype: torch.dtype | None = None, like: Any = None, p: float = 0.5) -> Node:
    """Return the node of a random tensor, in the given dtype or that of ``like``."""
    inputs = Inputs(*([] if like is None else [require_tensor(like)]))
    sizes = tuple(map(inputs.template, entries(shape)))
    if not inputs.found:
        raise UnsupportedError("the size of a random tensor must depend on an input, such as its batch: x.size(0)")
    dtype = dtype or (torch.get_default_dtype() if like is None else None)
    numbers = settled(dtype) if dtype is not None else like.numbers
    return Node(RandomTensor(distribution, sizes, p, dtype), tuple(inputs.found), numbers=numbers)


def _register(distribution: str, name: str) -> None:
    @function(getattr(torch, name))
    def convert(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **keywords: Any) -> Node:
        sizes = keywords.pop("size", None)
        return _drawn(distribution, as_sizes(size) if sizes is None else sizes, dtype)

    @function(getattr(torch, f"{name}_like"))
    def convert_like(input: Tensor, *, dtype: Any = None, **keywords: Any) -> Node:
        return _drawn(distribution, (Shape(input),), dtype, like=input)


_register("normal", "randn")
_register("uniform", "rand")


@function("bernoulli_")
def _bernoulli(input: Tensor, p: Any = 0.5, *, generator: Any = None) -> Node:
    if not isinstance(p, (int, float)):
        raise UnsupportedError("bernoulli_ needs a probability that is known when the module is traced")
    return _drawn("bernoulli", (Shape(input),), like=input, p=float(p))


@function("normal_")
def _normal(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
    _require_default(mean == 0.0 and std == 1.0, "normal_ with another mean than 0, or std than 1: write mean + std * noise")
    return _drawn("normal", (Shape(input),), like=input)


@function("uniform_")
def _uniform(input: Tensor, *ends: Any, generator: Any = None, **named: Any) -> Any:
    given = (*ends, *named.values())
    _require_default(given in ((), (0, 1)), "uniform_ with other ends than 0 and 1: write low + (high - low) * noise")
    return _drawn("uniform", (Shape(input),), like=input)


def _require_default(right: bool, rule: str) -> None:
    if not right:
        raise UnsupportedError(rule)


@function("new_empty")
def _new_empty(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Node:
    made = without_gradient("zeros", entries(as_sizes(size)), dtype=dtype or torch.get_default_dtype())
    return made if dtype is not None else _like(made, input)


@function(torch.empty_like)
def _empty_like(input: Tensor, *, dtype: Any = None, **keywords: Any) -> Node:
    made = without_gradient("zeros_like", input)
    return made if dtype is None else Node(Cast(dtype), (made,), numbers=settled(dtype))


def _like(made: Node, input: Tensor) -> Node:
    return without_gradient("to", made, input)
