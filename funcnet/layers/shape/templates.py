"""Sizes in the fields of layers: expressions of the shapes of x, evaluated at each call.

A template is a number, ``None``, ``...``, a slice or a tuple, in which an expression of the following may be in place of any
number. x is a tensor, which is input 0, or a tuple of tensors.

InputSize        x[input].shape[axis]
InputShape       x[input].shape[start:stop], several entries of the tuple that it is in
InputOnes        (1,) * (x[input].ndim - less), several entries too
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
    """The size of an axis of an input: ``x[input].shape[axis]``."""

    input: int = field(default=0, validator=whole(0))
    axis: int = field(default=0, validator=whole_number)


@frozen
class InputShape(Value):
    """The sizes of consecutive axes of an input: ``x[input].shape[start:stop]``, as entries of the tuple around it."""

    input: int = field(default=0, validator=whole(0))
    start: int | None = field(default=None, validator=_optional_whole)
    stop: int | None = field(default=None, validator=_optional_whole)


@frozen
class InputOnes(Value):
    """A size of 1 for each axis of an input but ``less`` of them: ``(1,) * (x[input].ndim - less)``, as entries of a tuple."""

    input: int = field(default=0, validator=whole(0))
    less: int = field(default=0, validator=whole(0))


@frozen
class InputTensor(Value):
    """An input itself, ``x[input]``, as an index of another one or as an argument."""

    input: int = field(default=0, validator=whole(0))


@frozen
class SizeArithmetic(Value):
    """A number computed from sizes: ``left + right`` for the name ``"add"``, and so on, with the names of ``operator``."""

    name: str = field(validator=one_of(*ARITHMETIC))
    left: Any
    right: Any


def inputs_of(x: Any) -> tuple[Tensor, ...]:
    """Return the inputs of a layer as a tuple: x itself, or the only one."""
    return x if isinstance(x, tuple) else (x,)


def evaluate(template: Any, inputs: tuple[Tensor, ...]) -> Any:
    """Return a template with the sizes of the inputs in place of the expressions."""
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
    """Return what an entry of a tuple becomes: several for ``InputShape`` and ``InputOnes``."""
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
    """Write slices as tuples, since they have no hash before Python 3.12."""
    if isinstance(template, slice):
        return ("slice", template.start, template.stop, template.step)
    return tuple(map(comparable, template)) if isinstance(template, tuple) else template


def is_size(template: Any, least: int = -1) -> bool:
    """Tell whether a template is a whole number of at least ``least``, or an expression that may be one."""
    if isinstance(template, (InputSize, InputShape, InputOnes, SizeArithmetic)):
        return True
    return isinstance(template, int) and not isinstance(template, bool) and template >= least


def _are_sizes(got: Any) -> bool:
    return isinstance(got, tuple) and all(map(is_size, got))


_SIZES_IN_WORDS = "a tuple of whole numbers of at least -1, InputSize, InputShape, InputOnes and SizeArithmetic"
sizes = valid_if(_are_sizes, _SIZES_IN_WORDS, most=MOST)
"""Validate a field of sizes."""

number_or_size = valid_if(
    lambda got: is_number(got) or isinstance(got, (InputSize, SizeArithmetic)),
    "a number, an InputSize or a SizeArithmetic",
)
"""Validate a field that is one number."""


whole_or_size = valid_if(
    lambda got: is_size(got, -(2**31)) and not isinstance(got, (InputShape, InputOnes)),
    "a whole number, an InputSize or a SizeArithmetic",
)
"""Validate a field that is one whole number."""


def keeps_batch(template: Any) -> bool:
    """Tell whether a first size is that of x's batch, or a multiple of it: rows of y then belong to one row of x each."""
    if isinstance(template, SizeArithmetic):
        return template.name == "mul" and (keeps_batch(template.left) or keeps_batch(template.right))
    if isinstance(template, InputShape):
        return template.input == 0 and not template.start
    return bool(template in (-1, InputSize(0, 0)))
