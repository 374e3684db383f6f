"""Schedules: frozen values that give a rate for each step, ``schedule(step) -> number``; step 0 is the first.

    ConstantSchedule   value
    LinearSchedule     start + (end - start) t / steps                   t = min(step, steps)
    CosineSchedule     end + (start - end) (1 + cos(π t / steps)) / 2    t = min(step, steps)
    StepSchedule       start γ^⌊step / step_size⌋
    JoinedSchedule     one after the other, each counted from its own beginning

An int gives a float; a 0-d tensor gives a 0-d float64 tensor, so a schedule is compiled with the step it belongs to.
"""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import is_whole, number, size, wrong
from funcnet.layer import Value, frozen


class Schedule(Value):
    """A frozen value that gives a number for each step; subclass it with ``@frozen``."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, step: Any) -> Any:
        """Return the value at a step, counted from 0: a float for an int, a 0-d float64 tensor for a 0-d tensor."""


def _real(step: Any) -> Any:
    """Turn a step into a number of the kind that comes out."""
    return step.to(torch.float64) if isinstance(step, Tensor) else float(step)


def _fraction(step: Any, steps: int) -> Any:
    """Return the part of the way that is gone, at most 1."""
    part = _real(step) / steps
    return part.clamp(max=1.0) if isinstance(part, Tensor) else min(part, 1.0)


@frozen
class ConstantSchedule(Schedule):
    """The same value at every step."""

    value: float = field(validator=number())

    def __call__(self, step: Any) -> Any:
        return _real(step) * 0.0 + self.value


@frozen
class LinearSchedule(Schedule):
    """In a straight line from ``start`` to ``end`` in ``steps`` steps, and ``end`` from then on; ``LinearLR``."""

    start: float = field(validator=number())
    end: float = field(validator=number())
    steps: int = field(validator=size)

    def __call__(self, step: Any) -> Any:
        return self.start + (self.end - self.start) * _fraction(step, self.steps)


@frozen
class CosineSchedule(Schedule):
    """Down half a cosine from ``start`` to ``end`` in ``steps`` steps, and ``end`` from then on.

    ``CosineAnnealingLR`` up to its ``T_max``, where that one turns and climbs again.

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
    """Times ``gamma`` after every ``step_size`` steps; ``StepLR``."""

    start: float = field(validator=number())
    step_size: int = field(validator=size)
    gamma: float = field(default=0.1, validator=number(0.0))

    def __call__(self, step: Any) -> Any:
        return self.start * self.gamma ** _real(step // self.step_size)


def _some_schedules(value: Any, attribute: Any, got: Any) -> None:
    if not (isinstance(got, tuple) and got and all(isinstance(one, Schedule) for one in got)):
        raise wrong("JoinedSchedule", "schedules must be a tuple of at least one schedule", repr(got))


def _between_them(value: Any, attribute: Any, got: Any) -> None:
    between = len(value.schedules) - 1
    if not isinstance(got, tuple) or len(got) != between:
        raise wrong("JoinedSchedule", f"boundaries must be a tuple of {between}, one between each two schedules", repr(got))
    if not all(is_whole(b) for b in got) or not all(a < b for a, b in pairwise((0, *got))):
        raise wrong("JoinedSchedule", "boundaries must be whole numbers that grow from above 0", repr(got))


@frozen
class JoinedSchedule(Schedule):
    """``schedules[0]`` before step ``boundaries[0]``, then ``schedules[1]``, counted from there, and so on; ``SequentialLR``."""

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
    """In a line from ``start`` to ``peak`` in ``warmup`` steps, then half a cosine down to ``end`` at step ``steps``."""
    if is_whole(warmup) and is_whole(steps) and steps <= warmup:
        raise wrong("WarmupCosineSchedule", f"steps must be above warmup={warmup}", steps)
    return JoinedSchedule((LinearSchedule(start, peak, warmup), CosineSchedule(peak, steps - warmup, end)), (warmup,))
