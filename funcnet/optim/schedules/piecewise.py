"""Piecewise schedules, with one piece from each boundary to the next.

Step t is in piece i if bᵢ ≤ t < bᵢ₊₁, with b₀ = 0. The boundaries b₁, b₂, ... are the first steps of the second and all later
pieces.
"""

from bisect import bisect_right
from itertools import pairwise
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import as_tuple, is_number, is_whole, one_of, value_error
from funcnet.optim.schedules.base import FormulaSchedule, Schedule
from funcnet.optim.schedules.formulas import SHAPES, along, choose
from funcnet.value import frozen


def _numbers(value: Any, attribute: Any, got: Any) -> None:
    if not (isinstance(got, tuple) and got and all(map(is_number, got))):
        rule = f"{attribute.name} must be a tuple of at least one finite number"
        raise value_error(type(value).__name__, rule, repr(got))


def _boundaries(pieces: str) -> Any:
    """Make a validator for ascending whole numbers above 0, one fewer than the entries of the field ``pieces``."""

    def validate(value: Any, attribute: Any, got: Any) -> None:
        who, between = type(value).__name__, len(getattr(value, pieces)) - 1
        if not isinstance(got, tuple) or len(got) != between:
            rule = f"boundaries must be a tuple of {between}, one between each two {pieces}"
            raise value_error(who, rule, repr(got))
        if not all(is_whole(b) for b in got) or not all(a < b for a, b in pairwise((0, *got))):
            raise value_error(who, "boundaries must be whole numbers that grow from above 0", repr(got))

    return validate


@frozen
class PiecewiseConstantSchedule(FormulaSchedule):
    """Constant between boundaries.

        rate = values[i]         for bᵢ ≤ t < bᵢ₊₁, b₀ = 0

    optax takes the ratio of each value to the previous one instead of the values.

    Args:
        values: Rate in each piece.
        boundaries: First step of the second and of each later piece, ascending, above 0.

    Raises:
        ValueError: If ``boundaries`` does not have one entry fewer than ``values``.

    References:
        ``optax.piecewise_constant_schedule``.

    >>> [PiecewiseConstantSchedule((1.0, 0.5), (3,))(t) for t in range(5)]
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """

    values: tuple[float, ...] = field(converter=as_tuple, validator=_numbers)
    boundaries: tuple[int, ...] = field(converter=as_tuple, validator=_boundaries("values"))

    def rate_at(self, t: Any) -> Any:
        if not isinstance(t, Tensor):
            return self.values[bisect_right(self.boundaries, t)]
        rate = t * 0.0 + self.values[0]
        for value, begin in zip(self.values[1:], self.boundaries, strict=True):
            rate = choose(t >= begin, value, rate)
        return rate


@frozen
class PiecewiseInterpolateSchedule(FormulaSchedule):
    """Interpolate from value to value.

        rate = values[i] + (values[i + 1] - values[i]) s(f)         f = (t - bᵢ) / (bᵢ₊₁ - bᵢ), b₀ = 0

    s(f) is f for ``"linear"``, and (1 - cos πf) / 2 for ``"cosine"``. From the last boundary on, the rate is the last value.

    Args:
        values: Rates at step 0 and at each boundary.
        boundaries: Steps of the second and of each later value, ascending, above 0.
        interpolate: ``"linear"`` or ``"cosine"``.

    Raises:
        ValueError: If ``boundaries`` does not have one entry fewer than ``values``.

    References:
        ``optax.piecewise_interpolate_schedule``.

    >>> [PiecewiseInterpolateSchedule((0.0, 1.0, 0.0), (2, 6))(t) for t in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    values: tuple[float, ...] = field(converter=as_tuple, validator=_numbers)
    boundaries: tuple[int, ...] = field(converter=as_tuple, validator=_boundaries("values"))
    interpolate: str = field(default="linear", validator=one_of("linear", "cosine"))

    def rate_at(self, t: Any) -> Any:
        return along(t, self.values, self.boundaries, SHAPES[self.interpolate])


def _some_schedules(value: Any, attribute: Any, got: Any) -> None:
    if not (isinstance(got, tuple) and got and all(isinstance(one, Schedule) for one in got)):
        raise value_error("JoinedSchedule", "schedules must be a tuple of at least one schedule", repr(got))


@frozen
class JoinedSchedule(FormulaSchedule):
    """One schedule after another.

        rate = schedules[i](t - bᵢ)         for bᵢ ≤ t < bᵢ₊₁, b₀ = 0

    Args:
        schedules: Schedules; each counts its steps from 0.
        boundaries: First step of the second and of each later schedule, ascending, above 0.

    Raises:
        ValueError: If an entry is not a schedule, or if ``boundaries`` does not have one entry fewer than ``schedules``.

    References:
        ``torch.optim.lr_scheduler.SequentialLR`` and ``optax.join_schedules``.

    >>> from funcnet.optim.schedules.interpolation import ConstantSchedule, LinearSchedule
    >>> schedule = JoinedSchedule((ConstantSchedule(1.0), LinearSchedule(1.0, 0.0, 2)), (3,))
    >>> [schedule(t) for t in range(6)]
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """

    schedules: tuple[Schedule, ...] = field(converter=as_tuple, validator=_some_schedules)
    boundaries: tuple[int, ...] = field(converter=as_tuple, validator=_boundaries("schedules"))

    def rate_at(self, t: Any) -> Any:
        begins = (0, *self.boundaries)
        if not isinstance(t, Tensor):
            i = bisect_right(self.boundaries, t)
            return self.schedules[i](t - begins[i])
        rate = self.schedules[0](t)
        for schedule, begin in zip(self.schedules[1:], self.boundaries, strict=True):
            rate = torch.where(t < begin, rate, schedule((t - begin).clamp(min=0)))
        return rate
