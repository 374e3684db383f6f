"""Errors: who, the broken rule with names and numbers, what was given, and where in the net.

Every message has the form ``who: rule, got what``; each combinator that an error passes on its way out adds a note::

    ValueError: Linear(in_features=4, out_features=3): the last axis of x must be in_features=4, got x of shape (8, 5)
      in serial, layer 2

The validators below are for ``attrs.field(validator=...)``: they check the fields of a value when it is created.
"""

import functools
import math
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from torch import Tensor, strided

Validator = Callable[[Any, Any, Any], None]
_P = ParamSpec("_P")
_R = TypeVar("_R")

_LONGEST = 300
"""The longest repr that an error shows, in characters; a longer one, as of params passed by mistake, becomes a description."""


def describe(value: object) -> str:
    """Describe an object in a few words: a tensor by its shape and dtype, a container by its type and length."""
    if isinstance(value, Tensor):
        return _describe_tensor(value)
    if _is_class_of_values(value):
        return f"the class {value.__name__}; make a value of it, {value.__name__}(...)"  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return "a dict with the keys " + ", ".join(map(repr, value)) if value else "an empty dict"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if hasattr(value, "__array_interface__") and getattr(value, "shape", ()) != ():
        return f"a numpy {type(value).__name__.removeprefix('nd')} of shape {value.shape} and dtype {value.dtype}"  # type: ignore[attr-defined]
    return repr(value)


def _is_class_of_values(got: object) -> bool:
    return isinstance(got, type) and "__attrs_attrs__" in got.__dict__


def _describe_tensor(x: Tensor) -> str:
    plain = "a DTensor" if hasattr(x, "device_mesh") else "a tensor"
    kind = "a nested tensor" if x.is_nested else plain if x.layout is strided else f"a tensor of layout {x.layout}"
    shape = "" if x.is_nested else f" of shape {tuple(x.shape)}"  # a nested tensor has none
    return f"{kind}{shape} and dtype {x.dtype}"


class PathError(LookupError, ValueError):
    """Raised for a path that does not exist: a ``LookupError``, and also a ``ValueError`` like all errors of funcnet."""


def value_error(who: object, rule: str, got: object) -> ValueError:
    """Make the error for a value that breaks a rule; ``who`` and ``got`` may be text."""
    error = ValueError(
        f"{who if isinstance(who, str) else repr(who)}: {rule}, got {got if isinstance(got, str) and got else describe(got)}"
    )
    error.explains = True  # type: ignore[attr-defined]
    return error


def explains(error: Exception) -> bool:
    """Return whether an error needs no explanation: ``value_error`` made it, or a signal handler raised it."""
    return getattr(error, "explains", False) or _comes_from_signal(error)


def _comes_from_signal(error: Exception) -> bool:
    """Return whether a signal handler raised an error, as that of a DataLoader does for a dead worker."""
    handlers = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def is_located(error: Exception) -> bool:
    """Return whether a combinator has added its location to an error."""
    return bool(getattr(error, "__notes__", ()))


def add_location(error: BaseException, where: str) -> None:
    """Add to an error its location in the net, for example ``serial, layer 2``."""
    error.add_note(f"  in {where}")


def adds_location(where: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a decorator for functions that create values: it adds the note ``where`` to errors that do not start with that."""

    def decorate(make: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(make)
        def located(*arguments: _P.args, **named: _P.kwargs) -> _R:
            try:
                return make(*arguments, **named)
            except (ValueError, TypeError) as error:
                if not str(error).startswith(where):
                    add_location(error, where)
                raise

        return located

    return decorate


def made_by(kind: type) -> str:
    """Return the name of the callable that creates values of a class: its ``label``, such as ``freeze``, or the class name."""
    label = getattr(kind, "label", None)
    return label if isinstance(label, str) else kind.__name__


def maker_of(value: object) -> str:
    """Do as ``made_by`` for a value, whose label may depend on its fields, as in ``residual``; the fields may be invalid."""
    with suppress(Exception):
        return value.label.partition(",")[0]  # type: ignore[attr-defined,no-any-return]
    return made_by(type(value))


def _refuse(value: object, name: str, rule: str, got: Any) -> ValueError:
    in_words = _is_class_of_values(got) or len(repr(got)) > _LONGEST
    return ValueError(f"{maker_of(value)}: {name} must be {rule}, got {describe(got) if in_words else repr(got)}")


def is_whole(value: object) -> bool:
    """Return whether a value is an integer that is not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a finite real number other than a bool; an integer must fit in 64 bits, like torch's."""
    if isinstance(value, Integral):
        return is_whole(value) and abs(int(value)) < _WORDS
    with suppress(OverflowError):  # for a large fraction
        return isinstance(value, Real) and -math.inf < float(value) < math.inf  # Dynamo has no ``isfinite`` for symbols
    return False


_WORDS = 2**63  # the bound of integers in kernels; a larger number can be given as a float
MOST = 2**31 - 1
"""The largest size that kernels can handle: some count in 32 bits, and hang or read out of bounds for larger ones."""


def whole(at_least: int) -> Validator:
    """Make a validator for a whole number of at least ``at_least`` and below 2³¹."""

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if not is_whole(got) or got < at_least:
            raise _refuse(value, attribute.name, f"a whole number of at least {at_least}", got)
        if got > MOST:
            raise _refuse(value, attribute.name, "below 2**31", got)

    return validate


def _require_word(value: Any, attribute: Any, got: Any, most: int = _WORDS - 1) -> None:
    """Raise ``ValueError`` for a whole number above ``most``, also in tuples: torch's own error is unclear, or an overflow."""
    for n in got if isinstance(got, tuple) else (got,):
        if isinstance(n, tuple):
            _require_word(value, attribute, n, most)
        elif is_whole(n) and abs(n) > most:
            raise _refuse(value, attribute.name, f"below 2**{most.bit_length()}", got)


def number(
    at_least: float = -math.inf, *, below: float = math.inf, at_most: float = math.inf, above: float = -math.inf
) -> Validator:
    """Make a validator for a finite number between bounds."""
    bounds = [f"at least {at_least}"] * (at_least > -math.inf) + [f"above {above}"] * (above > -math.inf)
    bounds += [f"at most {at_most}"] * (at_most < math.inf) + [f"below {below}"] * (below < math.inf)
    rule = " ".join(["a finite number", " and ".join(bounds)]).strip()

    def validate(value: Any, attribute: Any, got: Any) -> None:
        _require_word(value, attribute, got)
        if not is_number(got) or not (at_least <= got <= at_most and above < got < below):
            raise _refuse(value, attribute.name, rule, got)

    return validate


def one_of(*choices: object) -> Validator:
    """Make a validator for a choice among names."""
    rule = "one of " + ", ".join(map(repr, choices))

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if got not in choices:
            raise _refuse(value, attribute.name, rule, got)

    return validate


def instances(kind: type | tuple[type, ...], rule: str, *, several: bool = False) -> Validator:
    """Make a validator for a value of a type, or with ``several`` for a tuple of such values; ``rule`` describes them."""

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if several and not isinstance(got, tuple):
            raise _refuse(value, attribute.name, f"a tuple of {rule}", got)
        for entry in got if several else (got,):
            if not isinstance(entry, kind):
                raise _refuse(value, attribute.name, rule, entry)

    return validate


def function(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be a function, or another callable."""
    if not callable(got):
        raise _refuse(value, attribute.name, "a function", got)


def flag(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be ``True`` or ``False``."""
    if not isinstance(got, bool):
        raise _refuse(value, attribute.name, "True or False", got)


size = whole(1)
"""Validate a count of features, channels or steps: a whole number of at least 1."""


MANY = 1 << 20
"""The largest number of parts that are created one by one: layers, members, steps."""


def number_of_parts(value: Any, attribute: Any, got: Any) -> None:
    """Validate a count of parts that are created one by one; a size passed by mistake would take hours."""
    size(value, attribute, got)
    if got > MANY:
        raise _refuse(value, attribute.name, f"a whole number of at most {MANY}", got)


def size_or_none(value: Any, attribute: Any, got: Any) -> None:
    """Validate a size of the input: a whole number of at least 1, or ``None`` until it is inferred."""
    if got is not None:
        size(value, attribute, got)


def whole_number(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be a whole number of either sign, such as an axis."""
    if not is_whole(got):
        raise _refuse(value, attribute.name, "a whole number", got)
    _require_word(value, attribute, got)


def as_tuple(given: Any) -> Any:
    """Convert a whole number to a tuple of one, and a list to a tuple; a converter for fields that hold a tuple."""
    return (given,) if is_whole(given) else tuple(given) if isinstance(given, list) else given


def is_whole_tuple(value: object, at_least: float = -math.inf) -> bool:
    """Return whether a value is a tuple of whole numbers of at least ``at_least``."""
    return isinstance(value, tuple) and all(is_whole(n) and n >= at_least for n in value)


def valid_if(
    test: Callable[[Any], bool], rule: str, *, several: bool = False, optional: bool = False, empty: bool = False, most: int = 0
) -> Validator:
    """Make a validator for a value that passes a test.

    Args:
        test: The test.
        rule: The test in words: what the value must be.
        several: Whether a tuple of such values is valid too; it must have ``axes`` entries if the layer has ``axes``.
        optional: Whether ``None`` is valid.
        empty: Whether an empty tuple is valid, with ``several``.
        most: The largest valid whole number, also in a tuple: ``MOST`` for sizes; by default the largest 64-bit integer.
    """

    def validate(value: Any, attribute: Any, got: Any) -> None:
        is_tuple, axes = several and isinstance(got, tuple), getattr(value, "axes", None)
        counts = len(got) == axes if is_tuple and axes else not is_tuple or empty or got != ()
        if not (optional and got is None) and not (counts and all(map(test, got if is_tuple else (got,)))):
            them = f", or a tuple of {axes} of them, one for each axis" if axes else ", or a tuple of them"
            raise _refuse(value, attribute.name, rule + them * (is_tuple or (several and not axes)), got)
        _require_word(value, attribute, got, most or _WORDS - 1)

    return validate


def whole_numbers(at_least: int | None = None, *, optional: bool = False, empty: bool = False) -> Validator:
    """Make a validator for a whole number or a tuple of them, one for each axis if the layer has ``axes``; see ``valid_if``."""
    rule = "a whole number" if at_least is None else f"a whole number of at least {at_least}"
    is_valid = lambda n: is_whole(n) and (at_least is None or n >= at_least)
    return valid_if(is_valid, rule, several=True, optional=optional, empty=empty, most=MOST)


def divides(*names: str) -> Validator:
    """Make a validator for a whole number that divides other fields, except those that are still ``None``."""

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if any((getattr(value, name) or 0) % got for name in names):
            raise fields_error(value, f"{attribute.name} must divide {' and '.join(names)}", attribute.name, *names)

    return validate


def fields_error(value: object, rule: str, *names: str) -> ValueError:
    """Make the error for fields of a value that contradict each other, with the values of the fields in ``names``."""
    return value_error(maker_of(value), rule, ", ".join([f"{name}={getattr(value, name)!r}" for name in names]))
