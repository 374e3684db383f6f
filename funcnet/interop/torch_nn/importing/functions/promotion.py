"""Dtypes in traced code: operands of different dtypes, and arithmetic of whole numbers, by torch's rules.

    whole and floating      whole numbers are first converted to floating ones
    whole numbers only      ``NoGradient``, since nothing has a gradient
    float32 and float64     the narrower dtype is first converted to the wider one

Whole numbers are integers and booleans.
"""

from functools import reduce
from typing import Any

import torch

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.values import Node, Numbers, Ref, Undecided, dtype_of, is_whole, promoted, settled
from funcnet.layers.activation.base import Activation
from funcnet.layers.activation.bounds import Clamp
from funcnet.layers.activation.elementary import Abs, Sign
from funcnet.layers.activation.powers import PowScalar
from funcnet.layers.operands.arithmetic import Add, Div, Mul, Pow, Sub
from funcnet.layers.operands.choices import Maximum, Minimum, TypeAs, Where
from funcnet.layers.operands.matmul import MatMul
from funcnet.layers.operands.picking import Concat, Stack
from funcnet.layers.operands.ranking import CumSum
from funcnet.layers.operands.reductions import Reduction, Sum
from funcnet.layers.shape.casting import Cast
from funcnet.layers.shape.moving import RepeatInterleave
from funcnet.layers.shape.templates import InputTensor
from funcnet.layers.shape.without_gradient import NoGradient

Tensor = Ref | Node

_OPERATIONS: dict[type, str] = {
    Add: "add",
    Sub: "sub",
    Mul: "mul",
    Div: "div",
    Pow: "pow",
    MatMul: "matmul",
    Maximum: "maximum",
    Minimum: "minimum",
    Concat: "cat",
    Stack: "stack",
    Where: "where",
}
"""Functions of several tensors, by the layer for floating tensors."""


def numbers_of(layer: Layer, inputs: tuple[Tensor, ...]) -> Numbers:
    """Return the kind of numbers in the output of a layer, which is that of its first input if it only moves elements."""
    if not inputs:
        return None
    kind = type(layer).__module__
    moves = kind.startswith("funcnet.layers.shape.") or kind == "funcnet.layers.operands.picking"
    return inputs[0].numbers if moves and not isinstance(layer, Cast) else None


def computed(layer: Layer, inputs: tuple[Tensor, ...], parts: Any) -> Node:
    """Return the node of a layer whose inputs can be whole numbers or floating numbers of different dtypes."""
    if all(one.numbers is None for one in inputs):
        return Node(layer, inputs, {}, parts)
    if type(layer) in _OPERATIONS:
        return _operation(layer, inputs, parts)
    (x, *_) = inputs
    if isinstance(layer, RepeatInterleave) and is_whole(x.numbers):
        return whole("repeat_interleave", x, layer.repeats, layer.dim)
    if isinstance(layer, (Activation, Reduction, CumSum)):
        return _unary(layer, x, parts)
    return Node(layer, inputs, {}, parts, numbers=numbers_of(layer, inputs))


def whole(name: str, *arguments: Any, numbers: Numbers = None, **keywords: Any) -> Node:
    """Return the node of a function of whole numbers, some of whose arguments can be tensors or tuples of tensors."""
    found: list[Tensor] = []

    def template(value: Any) -> Any:
        if isinstance(value, (Ref, Node)):
            found.append(value)
            return InputTensor(len(found) - 1)
        return tuple(map(template, value)) if isinstance(value, tuple) else value

    given = tuple(map(template, arguments))
    result = numbers or reduce(promoted, [one.numbers for one in found])
    return Node(NoGradient(name, given, tuple(keywords.items())), tuple(found), numbers=result)


def floating(x: Tensor) -> Tensor:
    """Return whole numbers converted to torch's default dtype."""
    dtype = torch.get_default_dtype()
    return Node(Cast(dtype), (x,), numbers=settled(dtype)) if is_whole(x.numbers) else x


def _operation(layer: Any, inputs: tuple[Tensor, ...], parts: Any) -> Node:
    condition, operands = (inputs[:1], inputs[1:]) if isinstance(layer, Where) else ((), inputs)
    if any(not is_whole(one.numbers) for one in operands):
        operands, result = _in_one_dtype(operands)
        return Node(layer, (*condition, *operands), {}, parts, numbers=result)
    if isinstance(layer, Where):
        given = iter(operands)
        a, b = (next(given) if one is None else one for one in (layer.a, layer.b))
        if any(isinstance(one, float) and not one.is_integer() for one in (a, b)):
            return Node(layer, (*condition, *map(floating, operands)), {}, parts)
        numbers = reduce(promoted, [one.numbers for one in operands])
        return whole("where", *condition, *[_exact(one) for one in (a, b)], numbers=numbers)
    name = _OPERATIONS[type(layer)]
    if isinstance(layer, (Concat, Stack)):
        return whole(name, operands, layer.dim)
    numbers = settled(torch.get_default_dtype()) if isinstance(layer, Div) else None
    if isinstance(layer, Div) and numbers is None:
        return Node(layer, tuple(map(floating, operands)), {}, parts)
    return reduce(lambda a, b: whole(name, a, b, numbers=numbers), operands)  # type: ignore[return-value]


def _exact(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def _in_one_dtype(operands: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Numbers]:
    """Convert operands to the widest floating dtype among them; return them and their kind of numbers."""
    floats = [one for one in operands if not is_whole(one.numbers)]
    dtype = reduce(torch.promote_types, [dtype_of(one.numbers) for one in floats])
    widest = next(one for one in sorted(floats, key=_is_undecided) if dtype_of(one.numbers) == dtype)
    alike = [one if dtype_of(one.numbers) == dtype else Node(TypeAs(), (one, widest), numbers=widest.numbers) for one in operands]
    return tuple(alike), reduce(promoted, [one.numbers for one in alike])


def _is_undecided(x: Tensor) -> bool:
    return isinstance(x.numbers, Undecided)


def _unary(layer: Any, x: Tensor, parts: Any) -> Node:
    if not is_whole(x.numbers):
        return Node(layer, (x,), {}, parts, numbers=x.numbers)
    if isinstance(layer, (Abs, Sign)):
        return whole(type(layer).__name__.lower(), x)
    if isinstance(layer, Clamp):
        return whole("clamp", x, *[None if one is None else _exact(one) for one in (layer.min, layer.max)])
    return _closed(layer, x) or _of_floating(layer, x, parts)


def _of_floating(layer: Any, x: Tensor, parts: Any) -> Node:
    x = floating(x)
    return Node(layer, (x,), {}, parts, numbers=x.numbers)


def _closed(layer: Any, x: Tensor) -> Node | None:
    """Return the node of a function that maps whole numbers to whole numbers, or ``None``."""
    if isinstance(layer, PowScalar) and layer.exponent.is_integer() and layer.exponent >= 0:
        return whole("pow", x, int(layer.exponent))
    if isinstance(layer, CumSum):
        return whole("cumsum", x, layer.dim, numbers=torch.int64)
    if isinstance(layer, Sum):
        return whole("sum", x, layer.dim, layer.keepdim, numbers=torch.int64)
    return None
