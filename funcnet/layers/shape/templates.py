"""Sizes in the fields of layers: expressions of the shapes of x, evaluated in each call.

A template is a number, ``None``, ``...``, a slice or a tuple. Each number in it can be replaced by one of the expressions below.
x is a tensor, which is input 0, or a tuple of tensors.

InputSize        x[input].shape[axis]
InputShape       x[input].shape[start:stop], as several entries of the enclosing tuple
InputOnes        (1,) * (x[input].ndim - less), as several entries too
SizeArithmetic   left + right, left // right, ...
InputTensor      x[input] itself, as an index
"""

import operator
from collections.abc import Callable
from typing import Any

from attrs import field, validators
from torch import Tensor

from funcnet.checks import Misfit
from funcnet.errors import MOST, is_number, one_of, valid_if, whole, whole_number
from funcnet.value import Value, frozen

_optional_whole = validators.optional(whole_number)

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "lt", "le", "gt", "ge")
} | {"min": min, "max": max}
"""The operations between sizes."""


@frozen
class InputSize(Value):
    """The size of an axis of an input.

        value = x[input].shape[axis]

    Args:
        input: The position of the input in x.
        axis: The axis.
    """

    input: int = field(default=0, validator=whole(0))
    axis: int = field(default=0, validator=whole_number)


@frozen
class InputShape(Value):
    """The sizes of consecutive axes of an input, as several entries of the enclosing tuple.

        values = x[input].shape[start:stop]

    Args:
        input: The position of the input in x.
        start: The first axis; ``None`` for axis 0.
        stop: The axis after the last one; ``None`` for the end.
    """

    input: int = field(default=0, validator=whole(0))
    start: int | None = field(default=None, validator=_optional_whole)
    stop: int | None = field(default=None, validator=_optional_whole)


@frozen
class InputOnes(Value):
    """A size of 1 for each axis of an input except ``less`` of them, as several entries of the enclosing tuple.

        values = (1,) * (x[input].ndim - less)

    Args:
        input: The position of the input in x.
        less: Number of axes without an entry.
    """

    input: int = field(default=0, validator=whole(0))
    less: int = field(default=0, validator=whole(0))


@frozen
class InputTensor(Value):
    """An input itself, as an index of another input or as an argument.

        value = x[input]

    Args:
        input: The position of the input in x.
    """

    input: int = field(default=0, validator=whole(0))


@frozen
class SizeArithmetic(Value):
    """A number computed from sizes.

        value = left + right for the name ``"add"``, and so on

    Args:
        name: The operation, as named in the module ``operator``, or ``"min"`` or ``"max"``.
        left: The left operand: a number or an expression.
        right: The right operand.

    >>> import torch
    >>> evaluate(SizeArithmetic("floordiv", InputSize(0, 1), 2), (torch.ones(2, 6),))
    3
    """

    name: str = field(validator=one_of(*ARITHMETIC))
    left: Any
    right: Any


def inputs_of(x: Any) -> tuple[Tensor, ...]:
    """Return the inputs as a tuple: x itself, or a tuple with x as its only entry."""
    return x if isinstance(x, tuple) else (x,)


def evaluate(template: Any, inputs: tuple[Tensor, ...]) -> Any:
    """Return a template with its expressions evaluated for these inputs."""
    if isinstance(template, InputSize):
        return _input(template, inputs).shape[template.axis]
    if isinstance(template, InputTensor):
        return _input(template, inputs)
    if isinstance(template, SizeArithmetic):
        return ARITHMETIC[template.name](evaluate(template.left, inputs), evaluate(template.right, inputs))
    if isinstance(template, slice):
        return slice(*[evaluate(end, inputs) for end in (template.start, template.stop, template.step)])
    if isinstance(template, tuple):
        return tuple([entry for one in template for entry in _entries(one, inputs)])
    return template


def _entries(template: Any, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Return the entries that replace one entry of a tuple: several for ``InputShape`` and ``InputOnes``."""
    if isinstance(template, InputShape):
        return tuple(_input(template, inputs).shape[template.start : template.stop])
    if isinstance(template, InputOnes):
        return (1,) * (_input(template, inputs).dim() - template.less)
    return (evaluate(template, inputs),)


def _input(template: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    if template.input >= len(inputs):
        raise Misfit
    found: Tensor = inputs[template.input]
    return found


def comparable(template: Any) -> Any:
    """Convert slices to tuples: they are not hashable before Python 3.12."""
    if isinstance(template, slice):
        return ("slice", template.start, template.stop, template.step)
    return tuple(map(comparable, template)) if isinstance(template, tuple) else template


def is_size(template: Any, least: int = -1) -> bool:
    """Return whether a template is a whole number of at least ``least``, or an expression."""
    if isinstance(template, (InputSize, InputShape, InputOnes, SizeArithmetic)):
        return True
    return isinstance(template, int) and not isinstance(template, bool) and template >= least


def _are_sizes(got: Any) -> bool:
    return isinstance(got, tuple) and all(map(is_size, got))


_SIZES_IN_WORDS = "a tuple of whole numbers of at least -1, InputSize, InputShape, InputOnes and SizeArithmetic"
sizes = valid_if(_are_sizes, _SIZES_IN_WORDS, most=MOST)
"""Validator of a field of sizes."""

number_or_size = valid_if(
    lambda got: is_number(got) or isinstance(got, (InputSize, SizeArithmetic)),
    "a number, an InputSize or a SizeArithmetic",
)
"""Validator of a field with one number or size."""


whole_or_size = valid_if(
    lambda got: is_size(got, -(2**31)) and not isinstance(got, (InputShape, InputOnes)),
    "a whole number, an InputSize or a SizeArithmetic",
)
"""Validator of a field with one whole number or size."""


def keeps_batch(template: Any) -> bool:
    """Return whether a first size is the batch size of x or a multiple of it: each row of y then depends on one row of x."""
    if isinstance(template, SizeArithmetic):
        return template.name == "mul" and (keeps_batch(template.left) or keeps_batch(template.right))
    if isinstance(template, InputShape):
        return template.input == 0 and not template.start
    return bool(template in (-1, InputSize(0, 0)))
