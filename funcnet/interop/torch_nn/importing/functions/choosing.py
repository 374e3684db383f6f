"""Choices between tensors, comparisons and logic, dtypes, and new tensors."""

import operator
from functools import reduce
from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Inputs,
    Tensor,
    arithmetic,
    as_sizes,
    constant,
    entries,
    has_sizes,
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
from funcnet.layers.shape.sources import ConstantTensor
from funcnet.layers.shape.without_gradient import NoGradient


def without_gradient(name: str, *arguments: Any, **keywords: Any) -> Node:
    """Return the node of a function that has no gradient, whose arguments may be tensors and sizes."""
    inputs = Inputs()
    given = tuple(map(inputs.template, arguments))
    options = tuple((key, inputs.template(one)) for key, one in keywords.items())
    layer = NoGradient(name, given, options)
    return Node(layer, tuple(inputs.found), numbers=_numbers(name, arguments, keywords, inputs.found))


_TRUTHS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "any", "all")
_PLACES = ("argmax", "argmin", "argsort", "one_hot")


def _numbers(name: str, arguments: Any, keywords: Any, inputs: list[Tensor]) -> Numbers:
    """Return the numbers that a function without gradient gives."""
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
    """Return the larger of a tensor and another, or a number."""
    return node(Maximum(), input, other) if is_tensor(other) else node(Clamp(min=constant(other, "min")), input)


def smaller(input: Tensor, other: Any) -> Node:
    """Return the smaller of a tensor and another, or a number."""
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
        raise UnsupportedError("where with a condition only gives places whose number is not known")
    a, b = [None if is_tensor(one) else constant(one, "a number of where") for one in (input, other)]
    if a is not None and b is not None:
        raise UnsupportedError("where of two numbers has no gradient; multiply the condition, as floating numbers, with them")
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


@function(torch.nn.functional.one_hot, torch._C._nn.one_hot)
def _one_hot(tensor: Tensor, num_classes: int = -1) -> Node:
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UnsupportedError("one_hot needs num_classes, since the largest of the numbers is not known")
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
        return _type_as(input, others[0])
    dtypes = [one for one in given if isinstance(one, torch.dtype)]
    return cast(input, dtypes[0]) if dtypes else input


@function("type")
def _type_(input: Tensor, dtype: Any = None) -> Any:
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedError("type needs a dtype, such as torch.float32")
    return cast(input, dtype)


@function("type_as")
def _type_as(input: Tensor, other: Tensor) -> Node:
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


def _register_new(name: str, *functions: Any) -> None:
    """Register a function of sizes."""

    @function(*functions)
    def convert(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **keywords: Any) -> Node:
        sizes = keywords.pop("size", None)
        return _new(name, entries(as_sizes(size) if sizes is None else sizes), dtype=dtype)


def _new(name: str, *arguments: Any, dtype: Any = None) -> Node:
    """Return a new tensor: one written out where nothing depends on sizes, so that it is made once."""
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
    return made if dtype is not None else _type_as(made, input)


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
    """Return a tensor of one number, in the dtype of another tensor unless one is given."""
    made = without_gradient("full", entries(size), value, dtype=torch.float32 if dtype is None else dtype)
    return made if dtype is not None else _type_as(made, input)
