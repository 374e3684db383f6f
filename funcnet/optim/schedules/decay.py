"""Schedules that decay without end, or in steps.

t is the step, counted in updates from 0.
"""

import math
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import as_tuple, flag, is_whole_tuple, number, size, size_or_none, value_error, whole
from funcnet.optim.schedules.base import FormulaSchedule
from funcnet.optim.schedules.formulas import between, choose, floor, larger, power, progress, root, smaller
from funcnet.value import frozen


def _bound(value: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        number()(value, attribute, got)


@frozen
class ExponentialSchedule(FormulaSchedule):
    """Exponential decay, or growth.

        rate = start γˣ         x = max(t - begin, 0) / steps

    torch's ``ExponentialLR`` has ``steps=1``. thinc's ``compounding`` is ``ExponentialSchedule(start, compound, end=stop)``; for
    a batch size, which must be a whole number, use ``round(schedule(epoch))``.

    Args:
        start: Rate up to step ``begin``.
        gamma: The factor γ for every ``steps`` updates, at least 0.
        steps: Number of updates per factor γ.
        staircase: Whether x is rounded down: the rate then changes only every ``steps`` updates.
        begin: Step at which the decay begins.
        end: Bound that the rate does not cross: the lowest rate for γ < 1, otherwise the highest; ``None`` for no bound.

    References:
        ``optax.exponential_decay`` and ``torch.optim.lr_scheduler.ExponentialLR``.

    >>> [ExponentialSchedule(1.0, 0.5, end=0.2)(t) for t in range(5)]
    [1.0, 0.5, 0.25, 0.2, 0.2]
    """

    start: float = field(validator=number())
    gamma: float = field(validator=number(0.0))
    steps: int = field(default=1, validator=size)
    staircase: bool = field(default=False, validator=flag)
    begin: int = field(default=0, validator=whole(0))
    end: float | None = field(default=None, validator=_bound)

    def rate_at(self, t: Any) -> Any:
        x = larger(t - self.begin, 0.0) / self.steps
        rate = self.start * power(self.gamma, floor(x) if self.staircase else x)
        if self.end is None:
            return rate
        return larger(rate, self.end) if self.gamma < 1 else smaller(rate, self.end)


@frozen
class InverseTimeSchedule(FormulaSchedule):
    """Hyperbolic decay.

        rate = start / (1 + decay · t / steps)

    Args:
        start: Rate at step 0.
        decay: Decay over ``steps`` updates, at least 0: after ``steps / decay`` updates the rate is half of ``start``.
        steps: Unit of time, in updates.
        staircase: Whether t / steps is rounded down.

    References:
        Robbins & Monro 1951, "A stochastic approximation method"; ``jax.example_libraries.optimizers.inverse_time_decay``.

    >>> [InverseTimeSchedule(1.0, 0.5)(t) for t in (0, 2, 6)]
    [1.0, 0.5, 0.25]
    """

    start: float = field(validator=number())
    decay: float = field(validator=number(0.0))
    steps: int = field(default=1, validator=size)
    staircase: bool = field(default=False, validator=flag)

    def rate_at(self, t: Any) -> Any:
        x = t / self.steps
        return self.start / (1.0 + self.decay * (floor(x) if self.staircase else x))


@frozen
class InverseSquareRootSchedule(FormulaSchedule):
    """Linear warm-up, then decay with the square root of time.

        rate = start + (peak - start) t / warmup                    t < warmup
        rate = peak / √(1 + (t - warmup) / timescale)               t ≥ warmup

    With the default timescale the decay is peak √(warmup / t).

    Args:
        peak: Rate at step ``warmup``.
        warmup: Length of the warm-up, in updates; 0 for none.
        start: Rate at step 0, if there is a warm-up.
        timescale: Time scale of the decay, in updates: after three of them the rate is half of ``peak``. ``None`` for ``warmup``,
            or for 1 without a warm-up.

    References:
        Vaswani et al. 2017, "Attention is all you need", eq. 3, whose peak is 1 / √(features · warmup).

    >>> [InverseSquareRootSchedule(1.0, 4)(t) for t in (0, 2, 4, 16, 64)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    peak: float = field(validator=number())
    warmup: int = field(validator=whole(0))
    start: float = field(default=0.0, validator=number())
    timescale: int | None = field(default=None, validator=size_or_none)

    def rate_at(self, t: Any) -> Any:
        timescale = self.timescale or self.warmup or 1
        decayed = self.peak / root(1.0 + larger(t - self.warmup, 0.0) / timescale)
        return choose(t < self.warmup, between(self.start, self.peak, progress(t, self.warmup)), decayed)


@frozen
class StepSchedule(FormulaSchedule):
    """Multiply the rate by ``gamma`` every ``step_size`` updates.

        rate = start · gamma^⌊t / step_size⌋

    Args:
        start: Rate at step 0.
        step_size: Number of updates at each rate.
        gamma: Factor from each rate to the next, at least 0.

    References:
        ``torch.optim.lr_scheduler.StepLR``.

    >>> [StepSchedule(1.0, 2, gamma=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    start: float = field(validator=number())
    step_size: int = field(validator=size)
    gamma: float = field(default=0.1, validator=number(0.0))

    def rate_at(self, t: Any) -> Any:
        return self.start * power(self.gamma, t // self.step_size)


def _ascending(value: Any, attribute: Any, got: Any) -> None:
    if not is_whole_tuple(got, 0) or any(a > b for a, b in pairwise(got)):
        rule = f"{attribute.name} must be a tuple of whole numbers of at least 0, none below the one before"
        raise value_error(type(value).__name__, rule, repr(got))


@frozen
class MultiStepSchedule(FormulaSchedule):
    """Multiply the rate by ``gamma`` at every milestone.

        rate = start · gammaⁿ         n = number of milestones ≤ t

    Args:
        start: Rate before the first milestone.
        milestones: Steps, in ascending order; a repeated milestone counts twice.
        gamma: Factor at each milestone, at least 0.

    Raises:
        ValueError: If the milestones are not whole numbers in ascending order.

    References:
        ``torch.optim.lr_scheduler.MultiStepLR``.

    >>> [MultiStepSchedule(1.0, (2, 3), gamma=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    start: float = field(validator=number())
    milestones: tuple[int, ...] = field(converter=as_tuple, validator=_ascending)
    gamma: float = field(default=0.1, validator=number(0.0))

    def rate_at(self, t: Any) -> Any:
        if not isinstance(t, Tensor):
            return self.start * power(self.gamma, bisect_right(self.milestones, t))
        milestones = torch.tensor([math.inf, *self.milestones], dtype=torch.float64, device=t.device)
        return self.start * power(self.gamma, (t >= milestones).sum().to(torch.float64))
