"""Choices between tensors, comparisons and logic, and dtypes."""

import operator
from functools import reduce
from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Inputs,
    Tensor,
    arithmetic,
    constant,
    is_tensor,
    named,
    node,
    refuse_out,
    require_tensor,
)
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import (
    Arithmetic,
    Node,
    Numbers,
    Size,
    UnsupportedError,
    is_whole,
    promoted,
    settled,
    show_whole,
)
from funcnet.layers.activation.bounds import Clamp
from funcnet.layers.operands.choices import Maximum, Minimum, TypeAs, Where
from funcnet.layers.shape.casting import Cast
from funcnet.layers.shape.without_gradient import NoGradient


def without_gradient(name: str, *arguments: Any, **keywords: Any) -> Node:
    """Return the node of a function without gradient, whose arguments can be tensors and sizes."""
    inputs = Inputs()
    given = tuple(map(inputs.template, arguments))
    options = tuple((key, inputs.template(one)) for key, one in keywords.items())
    layer = NoGradient(name, given, options)
    return Node(layer, tuple(inputs.found), numbers=_numbers(name, arguments, keywords, inputs.found))


_TRUTHS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "any", "all")
_PLACES = ("argmax", "argmin", "argsort", "one_hot")


def _numbers(name: str, arguments: Any, keywords: Any, inputs: list[Tensor]) -> Numbers:
    """Return the kind of numbers that a function without gradient returns."""
    if name in _TRUTHS or name.startswith("logical"):
        return torch.bool
    dtypes = [one for one in (*arguments, *keywords.values()) if isinstance(one, torch.dtype)]
    if dtypes or name in _PLACES:
        return settled(dtypes[0]) if dtypes else torch.int64
    if name in ("zeros", "ones", "linspace", "eye"):
        return settled(torch.get_default_dtype())
    if name in ("full", "arange"):
        values = arguments[1:] if name == "full" else arguments
        return (
            torch.int64 if all(isinstance(one, (int, Size, Arithmetic)) for one in values) else settled(torch.get_default_dtype())
        )
    return reduce(promoted, [one.numbers for one in inputs]) if inputs else None


def larger(input: Tensor, other: Any) -> Node:
    """Return the elementwise maximum of a tensor and another tensor or a number."""
    return node(Maximum(), input, other) if is_tensor(other) else node(Clamp(min=constant(other, "min")), input)


def smaller(input: Tensor, other: Any) -> Node:
    """Return the elementwise minimum of a tensor and another tensor or a number."""
    return node(Minimum(), input, other) if is_tensor(other) else node(Clamp(max=constant(other, "max")), input)


@function(*named("maximum"))
def _maximum(input: Tensor, other: Tensor, *, out: Any = None) -> Node:
    refuse_out(out)
    return larger(input, other)


@function(*named("minimum"))
def _minimum(input: Tensor, other: Tensor, *, out: Any = None) -> Node:
    refuse_out(out)
    return smaller(input, other)


@function(torch.where)
def _where(condition: Tensor, input: Any = None, other: Any = None) -> Node:
    if input is None or other is None:
        raise UnsupportedError("where with only a condition returns an unknown number of indices")
    a, b = [None if is_tensor(one) else constant(one, "a number of where") for one in (input, other)]
    if a is not None and b is not None:
        raise UnsupportedError("where of two numbers has no gradient; convert the condition to floating numbers and multiply")
    return node(Where(a, b), condition, *[one for one in (input, other) if is_tensor(one)])


@function("where")
def _where_method(self: Tensor, condition: Tensor, other: Any) -> Node:
    return _where(condition, self, other)


@function(*named("masked_fill"))
def _masked_fill(input: Tensor, mask: Tensor, value: Any) -> Node:
    return _where(mask, value, input)


_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _register_comparison(name: str) -> None:
    @function(*named(name), getattr(operator, name))
    def convert(input: Any, other: Any, *, out: Any = None) -> Any:
        refuse_out(out)
        if is_tensor(input) or is_tensor(other):
            if any(is_tensor(one) and is_whole(one.numbers) for one in (input, other)):
                show_whole(input, other)
            return without_gradient(name, input, other)
        return arithmetic(name, input, other)


def _register_logic(name: str, *functions: Any) -> None:
    @function(*named(name), *functions)
    def convert(*tensors: Any, out: Any = None) -> Any:
        refuse_out(out)
        return without_gradient(name, *tensors)


for _name in _COMPARISONS:
    _register_comparison(_name)
for _name in ("logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite"):
    _register_logic(_name)
_register_logic("bitwise_and", operator.and_, operator.iand, "__and__", "__rand__")
_register_logic("bitwise_or", operator.or_, operator.ior, "__or__", "__ror__")
_register_logic("bitwise_xor", operator.xor, operator.ixor, "__xor__")
_register_logic("bitwise_not", operator.invert, "__invert__")


@function(torch.argmax, "argmax")
def _argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Node:
    return without_gradient("argmax", input, dim, keepdim)


@function(torch.argmin, "argmin")
def _argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Node:
    return without_gradient("argmin", input, dim, keepdim)


@function(torch.argsort, "argsort")
def _argsort(input: Tensor, dim: int = -1, descending: bool = False) -> Node:
    return without_gradient("argsort", input, dim, descending)


@function(torch.nn.functional.one_hot)
def _one_hot(tensor: Tensor, num_classes: int = -1) -> Node:
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UnsupportedError("one_hot needs num_classes, because the largest label is unknown")
    show_whole(tensor)
    return without_gradient("one_hot", tensor, num_classes)


@function(torch.any, "any")
def _any_(input: Tensor, *axes: Any, **named_axes: Any) -> Node:
    return without_gradient("any", input, *axes, **named_axes)


@function(torch.all, "all")
def _all_(input: Tensor, *axes: Any, **named_axes: Any) -> Node:
    return without_gradient("all", input, *axes, **named_axes)


def cast(input: Tensor, dtype: torch.dtype) -> Node:
    """Return a tensor in another dtype."""
    if not dtype.is_floating_point:
        return without_gradient("to", input, dtype)
    return Node(Cast(dtype), (require_tensor(input),), numbers=settled(dtype))


@function("to")
def _to(input: Tensor, *arguments: Any, **keywords: Any) -> Any:
    given = [*arguments, *keywords.values()]
    others = [one for one in given if is_tensor(one)]
    if others:
        return type_as(input, others[0])
    dtypes = [one for one in given if isinstance(one, torch.dtype)]
    return cast(input, dtypes[0]) if dtypes else input


@function("type")
def _type_(input: Tensor, dtype: Any = None) -> Any:
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedError("type needs a dtype, such as torch.float32")
    return cast(input, dtype)


@function("type_as")
def type_as(input: Tensor, other: Tensor) -> Node:
    """Convert a tensor to the dtype of another one."""
    if is_whole(require_tensor(other).numbers):
        return without_gradient("to", input, other)
    return Node(TypeAs(), (require_tensor(input), other), numbers=other.numbers)


_DTYPES = {"float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}
_DTYPES |= {"long": torch.int64, "int": torch.int32, "bool": torch.bool, "short": torch.int16, "byte": torch.uint8}


def _register_dtype(name: str, dtype: torch.dtype) -> None:
    @function(name)
    def convert(input: Tensor, memory_format: Any = None) -> Node:
        return cast(input, dtype)


for _name, _dtype in _DTYPES.items():
    _register_dtype(_name, _dtype)
