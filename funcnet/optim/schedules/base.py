"""The base of schedules, their sums and products, and functions as schedules.

s₁, s₂, ... are schedules or numbers, which all count the same steps t.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import describe, function, is_number, value_error
from funcnet.kernels.optim import read
from funcnet.kernels.tracing import is_eager
from funcnet.optim.rates import comparable
from funcnet.value import Value, frozen, holds_tensors


class Schedule(Value):
    """A frozen value that returns a number for each step; subclass it with ``@frozen``.

        rate = schedule(t)        t = 0, 1, 2, ... counts the updates

    Schedules multiply and add: ``0.1 * schedule``, ``warmup * decay``, ``schedule + 1e-5``.
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, step: Any) -> Any:
        """Return the rate at a step.

        Args:
            step: Number of updates so far, at least 0.

        Returns:
            A float for an int; a 0-d float64 tensor for a 0-d tensor.
        """

    def __mul__(self, other: Any) -> "ProductSchedule":
        return ProductSchedule((*_parts(self), *_parts(other))) if _is_part(other) else NotImplemented

    def __rmul__(self, other: Any) -> "ProductSchedule":
        return ProductSchedule((other, *_parts(self))) if _is_part(other) else NotImplemented

    def __add__(self, other: Any) -> "SumSchedule":
        return SumSchedule((*_terms(self), *_terms(other))) if _is_part(other) else NotImplemented

    def __radd__(self, other: Any) -> "SumSchedule":
        return SumSchedule((other, *_terms(self))) if _is_part(other) else NotImplemented


class FormulaSchedule(Schedule):
    """A schedule with one formula for numbers and for tensors; subclass it with ``@frozen`` and define ``rate_at``.

        rate = rate_at(t)

    It checks the step. In eager mode it converts a tensor to a number first: both give the same bits.

    >>> @frozen
    ... class Sawtooth(FormulaSchedule):
    ...     period: int
    ...
    ...     def rate_at(self, t):
    ...         return (t % self.period) / self.period
    >>> schedule = 0.1 * Sawtooth(4)
    >>> schedule(6), schedule(torch.tensor(6))
    (0.05, tensor(0.0500, dtype=torch.float64))
    """

    __slots__ = ()

    @abstractmethod
    def rate_at(self, t: Any) -> Any:
        """Return the rate at a step.

        Args:
            t: Step, at least 0: a number, or a 0-d float64 tensor.

        Returns:
            A number for a number, a 0-d float64 tensor for a tensor.
        """

    def __call__(self, step: Any) -> Any:
        if not isinstance(step, Tensor):
            return _number(self.rate_at(self._check_step(step)))
        if step.dim() or step.is_complex() or step.dtype is torch.bool:
            raise self._step_error(step)
        known = read(step)
        if isinstance(known, Tensor):  # traced, mapped or on another device
            return self.rate_at(known.to(torch.float64))
        return torch.as_tensor(_number(self.rate_at(self._check_step(known))), dtype=torch.float64)

    def _check_step(self, step: Any) -> Any:
        if not is_number(step) or step < 0:
            raise self._step_error(step)
        return step

    def _step_error(self, step: Any) -> ValueError:
        return value_error(self, "step must be a number of at least 0, or a 0-d tensor of one", step)


def _number(rate: Any) -> Any:
    """Return a rate as a float; a tensor, from a factor that is mapped or traced, is unchanged."""
    return rate if isinstance(rate, Tensor) else float(rate)


def _is_part(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and not value.is_complex() and value.dtype is not torch.bool
    return isinstance(value, Schedule) or is_number(value)


def _parts(value: Any) -> tuple[Any, ...]:
    return value.factors if isinstance(value, ProductSchedule) else (value,)


def _terms(value: Any) -> tuple[Any, ...]:
    return value.terms if isinstance(value, SumSchedule) else (value,)


def _several(value: Any, attribute: Any, got: Any) -> None:
    is_right = isinstance(got, tuple) and all(map(_is_part, got)) and any(isinstance(one, Schedule) for one in got)
    if not is_right:
        rule = f"{attribute.name} must be a tuple of schedules, finite numbers and 0-d tensors, with at least one schedule"
        raise value_error(type(value).__name__, rule, repr(got))


def _at(part: Any, t: Any) -> Any:
    """Return a part at a step, as a number if it can be read: a tensor and a number then give the same bits."""
    if isinstance(part, Schedule):
        return part(t)
    known = read(part.detach()) if isinstance(part, Tensor) and is_eager() else part
    return known.to(torch.float64) if isinstance(known, Tensor) else known


def _parts_field() -> Any:
    return field(validator=_several, eq=comparable, metadata=holds_tensors)


@frozen
class ProductSchedule(FormulaSchedule):
    """Product of schedules, numbers and 0-d tensors.

        rate = s₁(t) s₂(t) ...

    ``a * b`` and ``0.5 * a`` create it.

    Args:
        factors: Schedules, numbers and 0-d tensors, at least one of them a schedule. ``torch.func.vmap`` over the ``lr`` of ``lr
            * schedule`` sweeps the peak.

    Raises:
        ValueError: If there is no schedule among the factors, or if a factor has another type.

    References:
        ``torch.optim.lr_scheduler.ChainedScheduler``.

    >>> from funcnet.optim.schedules.interpolation import LinearSchedule
    >>> schedule = 0.5 * LinearSchedule(1.0, 0.0, 10)
    >>> schedule, schedule(5)
    (ProductSchedule(factors=(0.5, LinearSchedule(start=1.0, end=0.0, steps=10))), 0.25)
    """

    factors: tuple[float | Tensor | Schedule, ...] = _parts_field()

    def rate_at(self, t: Any) -> Any:
        rate: Any = 1.0
        for factor in self.factors:
            rate = rate * _at(factor, t)
        return rate


@frozen
class SumSchedule(FormulaSchedule):
    """Sum of schedules, numbers and 0-d tensors.

        rate = s₁(t) + s₂(t) + ...

    ``a + b`` and ``a + 0.01`` create it.

    Args:
        terms: Schedules, numbers and 0-d tensors, at least one of them a schedule.

    Raises:
        ValueError: If there is no schedule among the terms, or if a term has another type.

    >>> from funcnet.optim.schedules.interpolation import LinearSchedule
    >>> (LinearSchedule(1.0, 0.0, 10) + 0.5)(5)
    1.0
    """

    terms: tuple[float | Tensor | Schedule, ...] = _parts_field()

    def rate_at(self, t: Any) -> Any:
        rate: Any = 0.0
        for term in self.terms:
            rate = rate + _at(term, t)
        return rate


@frozen
class LambdaSchedule(FormulaSchedule):
    """Any function of the step as a schedule.

        rate = function(t)

    The function must be pure. In eager mode it receives an int; in compiled code and under ``vmap`` it receives a 0-d float64
    tensor, and needs ``torch.where`` instead of ``if``. Schedules are compared and pickled by their function: use a named
    function from a module.

    Args:
        function: Function of the step, the number of updates from 0, that returns a number or a 0-d tensor. If it returns a
            factor of the learning rate, use ``0.1 * LambdaSchedule(f)``.

    Raises:
        ValueError: If it is not a function; from a call, if it does not return a finite number.

    References:
        ``torch.optim.lr_scheduler.LambdaLR``.

    >>> schedule = 0.1 * LambdaSchedule(lambda t: 0.5**t)
    >>> schedule(2)
    0.025
    """

    function: Callable[[Any], Any] = field(validator=function)

    def rate_at(self, t: Any) -> Any:
        return number_of(self, "function", self.function, t)


def number_of(who: Any, name: str, function: Callable[[Any], Any], t: Any) -> Any:
    """Call a user's function of t and check the result: a number for a number, a 0-d float64 tensor for a 0-d tensor."""
    rate = function(t)
    if isinstance(rate, Tensor) and rate.dim() == 0 and not rate.is_complex():
        if isinstance(t, Tensor):
            return rate.to(torch.float64)
        rate = rate.item()
    if not is_number(rate):
        raise value_error(who, f"{name} must return a finite number, or a 0-d tensor", describe(rate))
    return torch.full_like(t, rate) if isinstance(t, Tensor) else rate
