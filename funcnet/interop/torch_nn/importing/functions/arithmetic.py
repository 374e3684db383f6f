"""Sums, products, quotients and powers of tensors, numbers and sizes, in any order."""

import math
import operator
from typing import Any

import torch

from funcnet.interop.torch_nn.importing.functions.arguments import (
    Tensor,
    arithmetic,
    is_size,
    is_tensor,
    named,
    node,
    refuse_out,
    require_tensor,
    sized,
)
from funcnet.interop.torch_nn.importing.functions.choosing import without_gradient
from funcnet.interop.torch_nn.importing.functions.promotion import floating
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Arithmetic, Node, Size, UnsupportedError, is_whole
from funcnet.layers.activation.elementary import Exp
from funcnet.layers.activation.powers import PowScalar, Reciprocal
from funcnet.layers.linear.rescaling import Rescale
from funcnet.layers.operands.arithmetic import Add, Div, Mul, Pow, Sub
from funcnet.layers.operands.matmul import MatMul
from funcnet.layers.shape.sized import RescaleBySize


def rescale(x: Tensor, scale: Any = 1, offset: Any = 0) -> Node:
    """Return scale x + offset, for numbers or sizes."""
    require_tensor(x)
    if is_whole(x.numbers) and all(map(_is_whole_number, (scale, offset))):
        return _of_whole(x, scale, offset)
    if is_size(scale) or is_size(offset):
        return sized(RescaleBySize, floating(x), scale, offset)
    if is_whole(x.numbers):
        x = floating(x)
    return Node(Rescale(float(scale), float(offset)), (x,), numbers=x.numbers)


def _of_whole(x: Tensor, scale: Any, offset: Any) -> Node:
    """Return scale x + offset for whole numbers."""
    y = x if scale == 1 else without_gradient("mul", x, scale)
    return y if offset == 0 else without_gradient("add", y, offset)  # type: ignore[return-value]


def _is_whole_number(value: Any) -> bool:
    """Return whether a number is whole, or computed from sizes with operations that return whole numbers."""
    if isinstance(value, Arithmetic):
        return value.name != "truediv" and all(map(_is_whole_number, (value.left, value.right)))
    return isinstance(value, Size) or (isinstance(value, int) and not isinstance(value, bool))


def _negated(value: Any) -> Any:
    return rescale(value, -1) if is_tensor(value) else arithmetic("mul", -1, value)


@function(*named("add"), operator.add, operator.iadd)
def add(input: Any, other: Any, *, alpha: float = 1, out: Any = None) -> Any:
    """Convert a sum of tensors, numbers and sizes."""
    refuse_out(out)
    if alpha != 1:
        other = rescale(other, alpha) if is_tensor(other) else arithmetic("mul", alpha, other)
    if is_tensor(input) and is_tensor(other):
        return node(Add(), input, other)
    if is_tensor(input) or is_tensor(other):
        return rescale(input, offset=other) if is_tensor(input) else rescale(other, offset=input)
    return arithmetic("add", input, other)


@function("__radd__", "__add__")
def _radd(input: Any, other: Any) -> Any:
    return add(input, other)


@function(*named("sub", "subtract"), operator.sub, operator.isub)
def _sub(input: Any, other: Any, *, alpha: float = 1, out: Any = None) -> Any:
    refuse_out(out)
    if alpha == 1 and is_tensor(input) and is_tensor(other):
        return node(Sub(), input, other)
    if alpha == 1 and is_tensor(other):
        return rescale(other, -1, input)
    return add(input, _negated(other), alpha=alpha)


@function("__rsub__", torch.rsub)
def _rsub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return _sub(other, input, alpha=alpha)


@function(*named("mul", "multiply"), operator.mul, operator.imul, "__rmul__", "__mul__")
def mul(input: Any, other: Any, *, out: Any = None) -> Any:
    """Convert a product of tensors, numbers and sizes."""
    refuse_out(out)
    if is_tensor(input) and is_tensor(other):
        return node(Mul(), input, other)
    if is_tensor(input) or is_tensor(other):
        return rescale(input, other) if is_tensor(input) else rescale(other, input)
    return arithmetic("mul", input, other)


@function(*named("div", "divide", "true_divide"), operator.truediv, operator.itruediv, "__truediv__")
def _div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    refuse_out(out)
    if rounding_mode is not None:
        raise UnsupportedError(f"division with rounding_mode={rounding_mode!r} has no gradient and no layer")
    if is_tensor(other):
        return node(Div(), input, other) if is_tensor(input) else rescale(node(Reciprocal(), other), input)
    if is_tensor(input):
        return rescale(input, 1 / other if not is_size(other) else arithmetic("truediv", 1, other))
    return arithmetic("truediv", input, other)


@function(operator.floordiv, "__floordiv__")
def _floordiv(input: Any, other: Any) -> Any:
    return _between_numbers("floordiv", input, other)


@function(operator.mod, "__mod__")
def _mod(input: Any, other: Any) -> Any:
    return _between_numbers("mod", input, other)


def _between_numbers(name: str, input: Any, other: Any) -> Any:
    if is_tensor(input) and is_whole(input.numbers) and not is_tensor(other) and _is_whole_number(other):
        return without_gradient({"floordiv": "floor_divide", "mod": "remainder"}[name], input, other)
    if is_tensor(input) or is_tensor(other):
        raise UnsupportedError(f"operator.{name} of tensors has a layer only for whole numbers")
    return arithmetic(name, input, other)


@function("__rtruediv__", "__rdiv__")
def _rdiv(input: Any, other: Any) -> Any:
    return _div(other, input)


@function(*named("neg", "negative"), operator.neg)
def _neg(input: Any, *, out: Any = None) -> Any:
    refuse_out(out)
    return _negated(input)


@function(*named("positive"), operator.pos)
def _positive(input: Any) -> Any:
    return input


@function(torch.pow, "pow", "pow_", operator.pow, operator.ipow, "__pow__")
def _power(input: Any, exponent: Any, *, out: Any = None) -> Any:
    refuse_out(out)
    if not is_tensor(input) and not is_tensor(exponent):
        return arithmetic("pow", input, exponent)
    if is_size(input) or is_size(exponent):
        raise UnsupportedError("a power with a size in it has no layer")
    if is_tensor(input):
        return node(Pow(), input, exponent) if is_tensor(exponent) else node(PowScalar(float(exponent)), input)
    return node(Exp(), rescale(exponent, math.log(_base(input))))


def _base(base: Any) -> float:
    if base <= 0:
        raise UnsupportedError(f"a number to the power of a tensor must be above 0, got {base!r}")
    return float(base)


@function("__rpow__")
def _rpower(input: Any, other: Any) -> Any:
    return _power(other, input)


@function(
    torch.matmul, torch.bmm, torch.mm, torch.mv, torch.dot, operator.matmul, "matmul", "bmm", "mm", "mv", "dot", "__matmul__"
)
def _matmul(input: Any, other: Any, *, out: Any = None) -> Any:
    refuse_out(out)
    return node(MatMul(), input, other)


@function("__rmatmul__")
def _rmatmul(input: Any, other: Any) -> Any:
    return _matmul(other, input)


@function(*named("addmm", "baddbmm", "addmv"))
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1, out: Any = None) -> Any:
    refuse_out(out)
    product = _matmul(mat1, mat2)
    return add(input if beta == 1 else rescale(input, beta), product, alpha=alpha)


@function(*named("addcmul"))
def _addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1, out: Any = None) -> Any:
    refuse_out(out)
    return add(input, mul(tensor1, tensor2), alpha=value)


@function(*named("addcdiv"))
def _addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1, out: Any = None) -> Any:
    refuse_out(out)
    return add(input, _div(tensor1, tensor2), alpha=value)


@function(*named("lerp"))
def _lerp(input: Any, end: Any, weight: Any, *, out: Any = None) -> Any:
    refuse_out(out)
    return add(input, mul(_sub(end, input), weight))
