"""Schedules: frozen values that give a rate for each step t, ``schedule(t) -> rate``; step 0 is the first update.

    ConstantSchedule   rate = value
    LinearSchedule     rate = start + (end - start) f                    f = min(t / steps, 1)
    CosineSchedule     rate = end + (start - end) (1 + cos(π f)) / 2     f = min(t / steps, 1)
    StepSchedule       rate = start γ^⌊t / step_size⌋
    JoinedSchedule     rate = sᵢ(t - bᵢ), the last i with bᵢ ≤ t         b₀ = 0, the others boundaries

An int gives a float; a 0-d tensor gives a 0-d float64 tensor, so a schedule is compiled with the step it belongs to.
"""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import describe, is_number, is_whole, number, size, value_error
from funcnet.value import Value, frozen


class Schedule(Value):
    """A frozen value that gives a number for each step; subclass it with ``@frozen``."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, step: Any) -> Any:
        """Return the value at a step, counted from 0: a float for an int, a 0-d float64 tensor for a 0-d tensor."""


def _real(step: Any) -> Any:
    """Turn a step into a number of the kind that comes out."""
    if isinstance(step, Tensor) and step.dim() == 0 and not step.is_complex():
        return step.to(torch.float64)
    if not is_number(step):
        raise value_error("schedule", "step must be a whole number, or a 0-d tensor", describe(step))
    return float(step)


def _fraction(step: Any, steps: int) -> Any:
    """Return the part of the way that is gone, at most 1."""
    part = _real(step) / steps
    return part.clamp(max=1.0) if isinstance(part, Tensor) else min(part, 1.0)


@frozen
class ConstantSchedule(Schedule):
    """The same rate at every step t: rate = ``value``.

    Units    ``value`` has that of the rate it stands for; a step is an update.
    Raises   ``ValueError`` for a value that is not a finite number.
    Source   ``optax.constant_schedule``.
    """

    value: float = field(validator=number())

    def __call__(self, step: Any) -> Any:
        return _real(step) * 0.0 + self.value


@frozen
class LinearSchedule(Schedule):
    """In a straight line, and then flat: rate = start + (end - start) min(t / steps, 1) at step t.

    Units    ``steps`` are updates; ``start`` and ``end`` are rates, where ``LinearLR`` has factors of one.
    Raises   ``ValueError`` for rates that are not finite numbers, and for ``steps`` below 1.
    Source   ``torch.optim.lr_scheduler.LinearLR``'s formula.
    """

    start: float = field(validator=number())
    end: float = field(validator=number())
    steps: int = field(validator=size)

    def __call__(self, step: Any) -> Any:
        return self.start + (self.end - self.start) * _fraction(step, self.steps)


@frozen
class CosineSchedule(Schedule):
    """Down half a cosine, and then flat: rate = end + (start - end) (1 + cos(π min(t / steps, 1))) / 2 at step t.

    ``CosineAnnealingLR`` up to its ``T_max``, where that one turns and climbs again.

    Units    ``steps`` are updates; ``start`` and ``end`` are rates.
    Raises   ``ValueError`` for rates that are not finite numbers, and for ``steps`` below 1.
    Source   Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts.
    """

    start: float = field(validator=number())
    steps: int = field(validator=size)
    end: float = field(default=0.0, validator=number())

    def __call__(self, step: Any) -> Any:
        angle = math.pi * _fraction(step, self.steps)
        cosine = torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle)
        return self.end + (self.start - self.end) * (1 + cosine) / 2


@frozen
class StepSchedule(Schedule):
    """Times ``gamma`` after every ``step_size`` steps: rate = start · gamma^⌊t / step_size⌋ at step t.

    Units    ``step_size`` is a number of updates, ``start`` a rate, ``gamma`` a factor.
    Raises   ``ValueError`` for a ``start`` that is not finite, a ``gamma`` below 0 or not finite, and a ``step_size`` below 1.
    Source   ``torch.optim.lr_scheduler.StepLR``'s formula.
    """

    start: float = field(validator=number())
    step_size: int = field(validator=size)
    gamma: float = field(default=0.1, validator=number(0.0))

    def __call__(self, step: Any) -> Any:
        steps = _real(step) // self.step_size
        return self.start * self.gamma**steps


def _some_schedules(value: Any, attribute: Any, got: Any) -> None:
    if not (isinstance(got, tuple) and got and all(isinstance(one, Schedule) for one in got)):
        raise value_error("JoinedSchedule", "schedules must be a tuple of at least one schedule", repr(got))


def _between_them(value: Any, attribute: Any, got: Any) -> None:
    between = len(value.schedules) - 1
    if not isinstance(got, tuple) or len(got) != between:
        raise value_error("JoinedSchedule", f"boundaries must be a tuple of {between}, one between each two schedules", repr(got))
    if not all(is_whole(b) for b in got) or not all(a < b for a, b in pairwise((0, *got))):
        raise value_error("JoinedSchedule", "boundaries must be whole numbers that grow from above 0", repr(got))


@frozen
class JoinedSchedule(Schedule):
    """One schedule after the other: rate = schedules[i](t - bᵢ) at step t, for the last i whose beginning bᵢ ≤ t.

    The first begins at step 0, and each other one at its entry of ``boundaries``.

    Units    ``boundaries`` are numbers of updates.
    Raises   ``ValueError`` for what is no tuple of schedules, and for ``boundaries`` that are not whole numbers, growing from
             above 0, one between each two schedules.
    Source   ``torch.optim.lr_scheduler.SequentialLR``'s formula.
    """

    schedules: tuple[Schedule, ...] = field(validator=_some_schedules)
    boundaries: tuple[int, ...] = field(validator=_between_them)

    def __call__(self, step: Any) -> Any:
        value = self.schedules[0](step)
        for schedule, begin in zip(self.schedules[1:], self.boundaries, strict=True):
            if isinstance(step, Tensor):
                value = torch.where(step < begin, value, schedule((step - begin).clamp(min=0)))
            elif step >= begin:
                value = schedule(step - begin)
        return value


def WarmupCosineSchedule(  # noqa: N802 (it makes a value)
    peak: float, warmup: int, steps: int, end: float = 0.0, start: float = 0.0
) -> JoinedSchedule:
    """Up in a line, then down half a cosine: rate = start + (peak - start) t / warmup at a step t before ``warmup``.

    From there on it is the ``CosineSchedule`` from ``peak`` that is at ``end`` at step ``steps``.

    Units    ``warmup`` and ``steps`` are updates, both from step 0; ``peak``, ``end`` and ``start`` are rates.
    Raises   ``ValueError`` for rates that are not finite numbers, a ``warmup`` below 1, and ``steps`` that are not above it.
    Source   ``optax.warmup_cosine_decay_schedule``.
    """
    if not is_whole(steps) or (is_whole(warmup) and steps <= warmup):
        raise value_error("WarmupCosineSchedule", f"steps must be a whole number above warmup={warmup}", steps)
    return JoinedSchedule((LinearSchedule(start, peak, warmup), CosineSchedule(peak, steps - warmup, end)), (warmup,))
