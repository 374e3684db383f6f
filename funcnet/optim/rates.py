"""Rates: hyperparameters that are numbers, schedules, or 0-d tensors.

A number is a constant in compiled code. A schedule is called with the number of updates made before: an int in eager mode, a 0-d
int64 tensor in compiled code and under ``vmap``. Torch divides that tensor in float32; a ``Schedule`` computes in float64, and
``LambdaSchedule(f)`` passes a float64 tensor to a plain function. A 0-d tensor is read at each update. It can be batched with
``torch.func.vmap``, which sweeps a rate, and differentiated with ``torch.func.grad``. After ``lr.fill_(0.01)``, compiled code
uses the new value without recompiling. Optimizers compare a field with a tensor by identity.
"""

from collections.abc import Callable, Sequence
from math import inf
from numbers import Real
from typing import Any

import attrs
import torch
from torch import Tensor

from funcnet.errors import Validator, describe, is_number, number, value_error
from funcnet.kernels import optim as kernels
from funcnet.kernels.tracing import is_eager
from funcnet.signatures import accepts_one_argument
from funcnet.value import holds_tensors

Rate = float | Tensor | Callable[[Any], Any]
"""A number, a 0-d tensor, or a schedule: a function of the step, an int or a 0-d tensor."""

Rates = Sequence[Any]
"""Rates at one step: numbers or 0-d tensors."""


def is_rate(value: Any, below: float = inf, at_least: float = 0.0) -> bool:
    """Return whether a value is a number between bounds that float32 can hold."""
    return is_number(value) and at_least <= value < below and value <= kernels.MOST


def rate(at_least: float = 0.0, below: float = inf) -> Validator:
    """Make a validator for a number between bounds that float32 can hold, a schedule, or a real 0-d tensor."""
    judge, fits = number(at_least, below=below), number(at_most=kernels.MOST)

    def validate(value: Any, attribute: Any, got: Any) -> None:
        is_tensor = isinstance(got, Tensor)
        if (got.dim() or got.is_complex() or got.is_nested) if is_tensor else not (callable(got) or isinstance(got, Real)):
            rule = f"{attribute.name} must be a number, a schedule, or a real 0-d tensor"
            raise value_error(type(value).__name__, rule, describe(got))
        got = _read(got)
        if callable(got) and not accepts_one_argument(got):
            rule = f"{attribute.name} must be a number, a 0-d tensor, or a schedule, a function of one argument, the step"
            raise value_error(type(value).__name__, rule, describe(got))
        if not callable(got) and not isinstance(got, Tensor):
            judge(value, attribute, got)
            fits(value, attribute, got)

    return validate


def pair_of_rates(below: float = 1.0) -> Validator:
    """Make a validator for a tuple of two non-negative rates below a bound."""
    return tuple_of_rates(2, below)


def tuple_of_rates(length: int, below: float = 1.0) -> Validator:
    """Make a validator for a tuple of non-negative rates below a bound."""
    words = {2: "two", 3: "three"}

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if not (isinstance(got, tuple) and len(got) == length and all(_is_valid(one, below) for one in got)):
            numbers = f"a tuple of {words.get(length, length)} numbers of at least 0 and below {below:g}"
            raise value_error(type(value).__name__, f"{attribute.name} must be {numbers}, or schedules", repr(got))

    return validate


def _is_valid(one: Any, below: float) -> bool:
    if isinstance(one, Tensor):
        return not one.dim() and not one.is_complex() and (isinstance(_read(one), Tensor) or is_rate(_read(one), below))
    return accepts_one_argument(one) if callable(one) else is_rate(one, below)


def rate_field(default: Any = attrs.NOTHING, *, at_least: float = 0.0, below: float = inf, validator: Any = None) -> Any:
    """Make a field for a rate: a number between bounds, a schedule, or a 0-d tensor, which is compared by identity.

    With ``validator``, for example from ``pair_of_rates``, the field can hold a tuple of rates.
    """
    judge = rate(at_least, below) if validator is None else validator
    return attrs.field(default=default, validator=judge, eq=comparable, metadata=holds_tensors)


def comparable(value: Any) -> Any:
    """Return the key by which a rate is compared and hashed: the rate itself, or the identity of a tensor."""
    if isinstance(value, tuple):
        return tuple(map(comparable, value))
    return ("tensor", id(value)) if isinstance(value, Tensor) else value


def limit_field() -> Any:
    """Make a required field for a limit: a number above 0, a schedule, or a 0-d tensor."""
    return rate_field(validator=_limit)


def _limit(value: Any, attribute: Any, got: Any) -> None:
    validate = rate() if callable(got) or isinstance(got, Tensor) else number(above=0.0)
    validate(value, attribute, got)


def fixed(*rates: Rate) -> Rates | None:
    """Return rates that are all numbers; ``None`` if one is a schedule or a tensor."""
    return None if any(callable(one) or isinstance(one, Tensor) for one in rates) else rates


def is_zero(rate: Rate) -> bool:
    """Return whether a rate is the number 0, so that its product can be skipped; ``False`` for a tensor or a schedule."""
    return is_number(rate) and bool(rate == 0)


def at(step: Tensor, *rates: Rate) -> Rates:
    """Return the value of each rate at a step: a number, or a 0-d tensor in compiled code."""
    now = kernels.read(step)
    return [kernels.materialize_scalar(_read(one(now) if callable(one) else one)) for one in rates]


def _read(rate: Any) -> Any:
    """Return a readable 0-d tensor as a number, which gives the same bits; anything else unchanged."""
    return kernels.read(rate.detach()) if isinstance(rate, Tensor) and rate.dim() == 0 and is_eager() else rate


def as_floats(rates: Rates | None) -> Rates | None:
    """Convert numbers to floats: kernels accept neither other NumPy numbers nor large ints."""
    return None if rates is None else tuple([float(one) if is_number(one) else one for one in rates])


def checked(who: Any, rates: Rates, step: Tensor, below: Sequence[float]) -> Rates:
    """Return the rates of a step, after checking that they are numbers below their bounds or 0-d tensors."""
    rates = as_floats([*map(_read, rates)]) or ()
    for one, bound in zip(rates, below or [inf] * len(rates), strict=True):
        if not (_is_scalar(one, step) if isinstance(one, Tensor) else is_rate(one, bound)):
            limits = "of at least 0" + f" and below {bound}" * (bound < inf)
            raise value_error(who, f"a schedule must return a finite number {limits}, or a 0-d tensor", describe(one))
    return rates


def _is_scalar(rate: Tensor, step: Tensor) -> bool:
    """Return whether a tensor can be a rate: real, 0-d, and on the meta device only if the step is."""
    return rate.dim() == 0 and not rate.is_complex() and bool(rate.is_meta <= step.is_meta)


def as_wide(t: Any) -> Any:
    """Return the number of an update; a 0-d tensor is converted to float64."""
    return t.to(torch.float64) if isinstance(t, Tensor) else t
