"""Values: frozen objects that hold numbers, strings, tuples, functions and other values, but no tensors.

Layers, losses, optimizers, schedules and initializers are values. Two equal values are interchangeable: they compare and hash by
their fields, pickle, and print as the call that creates them.
"""

from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real
from types import BuiltinFunctionType, FunctionType
from typing import Any, Self, TypeVar, overload

import attrs
from attrs import field
from torch import Tensor
from typing_extensions import dataclass_transform

from funcnet.errors import maker_of
from funcnet.indentation import indented

_T = TypeVar("_T")

holds_tensors = {"holds_tensors": True}
"""The metadata of a field that can hold tensors, such as a rate; its own validator checks them."""


@overload
def frozen(cls: type[_T]) -> type[_T]: ...
@overload
def frozen(*, eq: bool = True) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field, attrs.field))
def frozen(cls: type[_T] | None = None, *, eq: bool = True) -> Any:
    """Make instances of a class frozen values that compare by their fields: ``attrs.frozen`` with the inherited ``repr``.

    A field that holds a tensor, an array or a ``torch.nn`` module, at any depth, raises ``ValueError``. NumPy numbers become
    Python numbers, so that every value prints as a call that Python can evaluate.

    Args:
        cls: The class to decorate.
        eq: Whether values compare by their fields. With ``False``, for fields that cannot be compared, a value equals only
            itself.

    Raises:
        TypeError: For anything but a class, and for a class that is frozen already.

    >>> @frozen
    ... class Point(Value):
    ...     x: float
    ...     y: float = 0.0
    >>> Point(1.0), Point(1.0) == Point(1.0, 0.0)
    (Point(x=1.0), True)
    """
    if cls is None:
        return lambda one: frozen(one, eq=eq)  # type: ignore[call-overload]
    if not isinstance(cls, type):
        raise TypeError(f"frozen: it decorates classes, got {cls!r}; to freeze the params of a layer, use freeze(layer)")
    if "__attrs_attrs__" in cls.__dict__:
        raise TypeError(f"frozen: {cls.__name__} must be decorated once, got a class that is frozen already")
    made = attrs.frozen(cls, repr=False, eq=eq, field_transformer=_checked_fields)
    if "__init__" not in cls.__dict__:
        _annotate_arguments(made)
    if issubclass(made, Value):
        made._when_frozen()
    return made


def _checked_fields(cls: type, fields: list[Any]) -> list[Any]:
    """Make every field convert NumPy numbers first, and reject tensors before its validator runs."""
    own = [one for one in fields if one.init and not one.inherited]
    return [
        one.evolve(validator=_without_tensors(one), converter=_with_native_numbers(one.converter)) if one in own else one
        for one in fields
    ]


def _annotate_arguments(made: Any) -> None:
    """Annotate ``__init__`` with the types of the fields for ``help``: attrs uses the types of converters, which accept all."""
    types = {one.alias: one.type for one in made.__attrs_attrs__ if one.init and one.type is not None}
    made.__init__.__annotations__.update(types)
    made.__init__.__doc__ = None  # attrs says only that it generated the method


def _with_native_numbers(converter: Any) -> Any:
    return attrs.converters.pipe(_native, converter) if converter else _native


def _native(got: Any) -> Any:
    """Convert NumPy numbers and fractions, also in tuples and lists, to Python numbers, which kernels accept.

    The number stays the same: float32(0.1) becomes 0.10000000149. A fraction becomes the nearest float.
    """
    if type(got).__module__ == "numpy" and getattr(got, "shape", None) == ():
        return got.item()
    if isinstance(got, Fraction):
        return _as_float(got)
    return type(got)(map(_native, got)) if type(got) in (tuple, list) else got


def _as_float(got: Fraction) -> Any:
    """Return a fraction as a float; one that is too large is returned unchanged, and rejected later."""
    with suppress(OverflowError):
        return float(got)
    return got


def _without_tensors(one: Any) -> Any:
    """Return the validator of a field, after one that rejects tensors."""
    if one.metadata == holds_tensors:
        return one.validator
    return attrs.validators.and_(_no_tensor, one.validator) if one.validator else _no_tensor


def _no_tensor(value: object, attribute: Any, got: Any) -> None:
    kind, found = next(((_kind(part), part) for part in unpacked(got) if _kind(part)), ("", got))
    if kind:
        vector = f"; write a vector as tuple({attribute.name}.tolist())" if getattr(got, "ndim", 0) == 1 else ""
        rule = f"{attribute.name} must not hold {kind}, but numbers, tuples or values{vector}; params come from init"
        came = f"{kind} of shape {tuple(found.shape)}" if hasattr(found, "shape") else repr(found)
        raise ValueError(f"{maker_of(value)}: {rule}, got {came}")


def _kind(part: Any) -> str:
    """Name the kind of an object that holds parameters; ``""`` for anything a field may hold."""
    if isinstance(part, Tensor):
        return "a tensor"
    if hasattr(part, "__array__") and getattr(part, "ndim", False):
        return "an array"
    return "a torch.nn module" if callable(getattr(part, "named_parameters", None)) else ""


def unpacked(got: Any) -> Iterator[Any]:
    """Yield the contents of containers, recursively; values were checked when they were created."""
    is_container = isinstance(got, (tuple, list, set, frozenset, dict))
    yield from (part for one in _inner(got) for part in unpacked(one)) if is_container else (got,)


def _inner(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def parts(value: Any, *, given: bool = False) -> Iterator[Any]:
    """Yield a value, and everything within its fields, tuples, lists and dicts.

    With ``given`` only constructor arguments are searched: a wrapper keeps a second form of its optimizer, which would otherwise
    count twice.
    """
    yield value
    inner = _inner(value) if isinstance(value, (tuple, list, dict)) else ()
    fields = [getattr(value, one.name) for one in _fields(type(value)) if one.init or not given]
    for part in (*inner, *fields):
        yield from parts(part, given=given)


def _fields(kind: Any) -> tuple[Any, ...]:
    return attrs.fields(kind) if attrs.has(kind) else ()


def _default(value: Any, attribute: Any) -> Any:
    made = attribute.default
    return (made.factory(value) if made.takes_self else made.factory()) if isinstance(made, attrs.Factory) else made  # type: ignore[arg-type]


def _source_of(value: Any) -> str:
    """Write a field as an argument: functions by name, ``inf`` and NumPy numbers as expressions that Python can evaluate."""
    if type(value) is tuple:
        return f"({', '.join(map(_source_of, value))}{',' * (len(value) == 1)})"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return value.__name__
    if not isinstance(value, Real) or isinstance(value, bool):
        return repr(value)
    if isinstance(value, Integral):  # of any size, also beyond floats
        return repr(int(value))
    number = float(value)
    return repr(number) if isfinite(number) else f"float('{number}')"


class Value(metaclass=ABCMeta):  # noqa: B024 (its subclasses have the abstract methods)
    """A frozen value whose ``repr`` is the call that creates it, with the arguments that are not defaults.

    ``print`` breaks a long call into indented lines, which still evaluate to the value. Decorate subclasses with ``frozen``.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Make a value; raise ``TypeError`` for a class that is not decorated itself, whatever its bases."""
        unfinished = getattr(cls, "__abstractmethods__", ())  # Python itself rejects these
        if "__attrs_attrs__" not in cls.__dict__ and not unfinished:
            raise TypeError(f"{cls.__name__} must be decorated with @funcnet.frozen, which makes its fields and compares them")
        return super().__new__(cls)

    def __repr__(self) -> str:
        shown = [(f.name, getattr(self, f.name), _default(self, f)) for f in getattr(type(self), "__attrs_attrs__", ()) if f.init]
        words = [
            f"{name.lstrip('_')}={_source_of(value)}"
            for name, value, default in shown
            if _source_of(value) != _source_of(default)
        ]
        return f"{type(self).__name__}({', '.join(words)})"

    def __str__(self) -> str:
        """Return the ``repr``, over several indented lines if it is long."""
        return indented(repr(self))

    def replace(self, **changes: Any) -> Self:
        """Return the value with other fields: ``SGD(lr=0.1).replace(lr=0.2)``.

        Args:
            changes: New values of fields, by name.
        """
        return attrs.evolve(self, **changes)  # type: ignore[misc]  # every subclass is decorated with frozen

    @classmethod
    def _when_frozen(cls) -> None:
        """Finish a class decorated with ``frozen``; a layer then guards its verbs."""
        return
