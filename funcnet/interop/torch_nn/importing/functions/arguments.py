"""Helpers of the converters: kinds of arguments, names of functions and methods, and sizes as fields of layers."""

import operator
from typing import Any

import torch
from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.functions.promotion import computed, numbers_of
from funcnet.interop.torch_nn.importing.values import Arithmetic, Node, Ones, Ref, Shape, Size, UnsupportedError
from funcnet.layers.shape.sized import Sized
from funcnet.layers.shape.templates import InputOnes, InputShape, InputSize, InputTensor, SizeArithmetic

Tensor = Ref | Node
"""A tensor of the traced code."""


def named(*names: str) -> list[Any]:
    """Return the torch functions and methods with the given names, and their in-place forms."""
    found: list[Any] = []
    for name in [form for one in names for form in (one, f"{one}_")]:
        spaces = (torch, nn.functional, torch.special)
        found += [getattr(space, name) for space in spaces if callable(getattr(space, name, None))]
        found += [name] if hasattr(torch.Tensor, name) else []
    return found


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor of the traced code, or a tuple of them."""
    return isinstance(value, (Ref, Node))


def is_size(value: Any) -> bool:
    """Return whether a value is a number that depends on shapes."""
    return isinstance(value, (Size, Arithmetic))


def has_sizes(value: Any) -> bool:
    """Return whether a value contains sizes that depend on shapes."""
    if isinstance(value, slice):
        return any(map(has_sizes, (value.start, value.stop, value.step)))
    if isinstance(value, (tuple, list)):
        return any(map(has_sizes, value))
    return isinstance(value, (Size, Shape, Ones, Arithmetic))


def as_sizes(given: tuple[Any, ...]) -> Any:
    """Return sizes passed one by one, or as one tuple, list or shape."""
    if len(given) == 1 and not is_size(given[0]) and not isinstance(given[0], int):
        return tuple(given[0]) if isinstance(given[0], (tuple, list)) else given[0]
    return given


def entries(sizes: Any) -> tuple[Any, ...]:
    """Return sizes as a tuple whose entries may be shapes, as in ``x.shape[:2] + (3,)``."""
    if isinstance(sizes, Arithmetic) and sizes.name in ("add", "concat"):
        return (*entries(sizes.left), *entries(sizes.right))
    return tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)


def node(layer: Layer, *inputs: Tensor, parts: Any = None) -> Node:
    """Return the node of a layer without params."""
    for one in inputs:
        require_tensor(one)
    return computed(layer, inputs, parts)


def require_tensor(value: Any) -> Tensor:
    """Return a tensor; anything else cannot be an input of a layer."""
    if not isinstance(value, (Ref, Node)):
        raise UnsupportedError(f"a tensor is expected, got {value!r}")
    if value.parts is not None:
        raise UnsupportedError("a tensor is expected, got several in a tuple")
    return value


class Inputs:
    """The distinct inputs of a layer, collected from arguments."""

    def __init__(self, *first: Tensor) -> None:
        self.found: list[Tensor] = list(first)

    def number(self, one: Tensor) -> int:
        """Return the number of an input; a new input is added."""
        for i, other in enumerate(self.found):
            if one is other or (isinstance(one, Ref) and one == other):
                return i
        self.found.append(one)
        return len(self.found) - 1

    def template(self, value: Any) -> Any:
        """Return an argument as a field of a layer, with sizes and tensors replaced by expressions of the inputs."""
        if isinstance(value, Size):
            return InputSize(self.number(value.of), value.axis)
        if isinstance(value, (Shape, Ones)):
            of = self.number(value.of)
            return InputOnes(of, value.less) if isinstance(value, Ones) else InputShape(of, value.start, value.stop)
        if isinstance(value, Arithmetic):
            return SizeArithmetic(value.name, self.template(value.left), self.template(value.right))
        if isinstance(value, (Ref, Node)):
            return InputTensor(self.number(value))
        if isinstance(value, slice):
            return slice(*map(self.template, (value.start, value.stop, value.step)))
        return tuple(map(self.template, value)) if isinstance(value, (tuple, list)) else value


def sized(kind: type[Sized], x: Tensor, *fields: Any, **named_fields: Any) -> Node:
    """Return the node of a layer whose fields contain sizes; the tensors with these sizes become inputs after x."""
    inputs = Inputs(require_tensor(x))
    values = [inputs.template(one) for one in fields]
    named_values = {name: inputs.template(one) for name, one in named_fields.items()}
    return Node(layer := kind(*values, **named_values), tuple(inputs.found), numbers=numbers_of(layer, (x,)))


def arithmetic(name: str, left: Any, right: Any) -> Any:
    """Return the result of an operation on numbers, some of which can depend on shapes."""
    if is_size(left) or is_size(right):
        return Arithmetic(name, left, right)
    return getattr(operator, name)(left, right)


def refuse_out(out: Any) -> None:
    """Refuse the argument ``out``, a tensor to write to."""
    if out is not None:
        raise UnsupportedError("out= is a tensor to write to, and layers write to nothing")


def whole(value: Any, name: str) -> int:
    """Return an argument that must be a whole number and known when the module is traced."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnsupportedError(f"{name} must be a whole number known when the module is traced, got {value!r}")
    return value


def constant(value: Any, name: str) -> Any:
    """Return an argument that must be known when the module is traced."""
    if is_tensor(value) or has_sizes(value):
        raise UnsupportedError(f"{name} must be known when the module is traced")
    return value
