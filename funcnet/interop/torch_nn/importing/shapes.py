"""Shapes: the part of traced code that computes with sizes, which are known only at run time."""

import builtins
import math
import operator
from typing import Any

from funcnet.interop.torch_nn.importing.values import (
    Arithmetic,
    Axes,
    Dtype,
    Node,
    Ones,
    Ref,
    Shape,
    Size,
    Unknown,
    UnsupportedError,
)

MISSING = object()
"""Returned by ``evaluate`` for code that computes tensors."""

_SIZES = (Size, Shape, Ones, Arithmetic)
_IN_PLACE = {"iadd": "add", "isub": "sub", "imul": "mul", "ifloordiv": "floordiv", "itruediv": "truediv", "imod": "mod"}
_PLAIN = {operator.__name__, "_operator", math.__name__, builtins.__name__}


def evaluate(target: Any, args: tuple[Any, ...]) -> Any:
    """Return the value of a function or a method that reads shapes or computes with sizes; ``MISSING`` for other code."""
    if target is getattr:
        return _attribute(*args)
    if isinstance(target, str):
        return _method(target, *args)
    if target is len and isinstance(args[0], (Ref, Node, Shape)):
        return _count(args[0])
    if target is operator.getitem and isinstance(args[0], (Shape, tuple, list, dict)):
        return _entry(*args) if isinstance(args[0], Shape) else args[0][args[1]]
    if getattr(target, "__module__", None) in _PLAIN and not any(holds(one, (Ref, Node)) for one in args):
        return _computed(target, args)
    return MISSING


def _count(x: Any) -> Any:
    """Return the length of a tuple, the size of the first axis of a tensor, or the number of axes in a shape."""
    if isinstance(x, Shape):
        return Axes(x.of) if (x.start, x.stop) == (None, None) else Unknown("the number of axes is not known while tracing")
    if isinstance(x.parts, (tuple, dict)):
        return len(x.parts)
    if x.parts is not None:
        raise UnsupportedError("the number of entries of a tuple of tensors is unknown")
    return evaluate(operator.getitem, (_shape_of(x), 0))


def _method(name: str, x: Any, *args: Any) -> Any:
    """Return the value of a method that reads a shape."""
    if name == "size":
        shape = _shape_of(x)
        return evaluate(operator.getitem, (shape, args[0])) if args else shape
    if name not in ("dim", "ndimension"):
        return MISSING
    if isinstance(x, (Ref, Node)) and x.shape is not None:
        return len(x.shape)
    return Axes(x)


def _attribute(x: Any, name: str) -> Any:
    if name == "shape":
        return _shape_of(x)
    if name == "dtype":
        return Dtype(x)
    if name in ("device", "layout"):
        return None
    if name in ("requires_grad", "is_cuda", "is_quantized", "is_nested", "is_sparse"):
        return False
    if name == "ndim":
        return evaluate("dim", (x,))
    return MISSING


def _shape_of(x: Any) -> Any:
    """Return the shape of a tensor: numbers for a parameter, else a shape that is known at run time."""
    return x.shape if isinstance(x, (Ref, Node)) and x.shape is not None else Shape(x)


def _entry(shape: Shape, index: Any) -> Any:
    """Return an entry of a shape, or some of its entries."""
    if isinstance(index, slice):
        if (shape.start, shape.stop, index.step) != (None, None, None) or holds((index.start, index.stop), _SIZES):
            raise UnsupportedError(f"a shape with the entries [{shape.start}:{shape.stop}] cannot be cut again")
        return Shape(shape.of, index.start, index.stop)
    if not isinstance(index, int):
        raise UnsupportedError("the index of an entry of a shape must be a number")
    start = (shape.start or 0) if index >= 0 else shape.stop if shape.stop is not None else 0
    return Size(shape.of, start + index)


def _computed(function: Any, args: tuple[Any, ...]) -> Any:
    """Call a function of numbers, or build its formula if some are sizes."""
    if holds(args, (Axes, Unknown)):
        return next((one for one in args if isinstance(one, Unknown)), None) or _of_axes(function, args)
    if not holds(args, _SIZES):
        return function(*args)
    if function in (operator.add, operator.iadd) and any(isinstance(one, (Shape, tuple, list)) for one in args):
        return (*_as_tuple(args[0]), *_as_tuple(args[1]))
    if function is math.sqrt:
        return Arithmetic("pow", args[0], 0.5)
    if function is operator.neg:
        return Arithmetic("mul", args[0], -1)
    if len(args) != 2 or not hasattr(operator, function.__name__) or holds(args, (Shape,)):
        raise UnsupportedError(f"{function.__name__} of sizes cannot be written as a formula")
    return Arithmetic(_IN_PLACE.get(function.__name__, function.__name__), *args)


def _of_axes(function: Any, args: tuple[Any, ...]) -> Any:
    """Return a number of axes minus a number, or a tuple of as many sizes of 1; other results are unknown."""
    left, right = (*args, None)[:2]
    if function is operator.sub and isinstance(left, Axes) and isinstance(right, int):
        return Axes(left.of, left.less + right)
    if function is operator.mul:
        axes, ones = (left, right) if isinstance(left, Axes) else (right, left)
        if ones in ((1,), [1]) and axes.less >= 0:
            return Ones(axes.of, axes.less)
    return Unknown("the number of axes is not known while tracing")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def holds(values: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a value of one of the kinds is among the values, or inside their tuples, lists and dicts."""
    if isinstance(values, kinds):
        return True
    if isinstance(values, dict):
        return holds(tuple(values.values()), kinds)
    return isinstance(values, (tuple, list)) and any(holds(one, kinds) for one in values)
