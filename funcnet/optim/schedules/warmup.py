"""Schedules that begin with a warm-up.

t is the step, counted in updates from 0. The functions return a ``JoinedSchedule`` of the two phases.
"""

import math
from typing import Any

from attrs import field

from funcnet.errors import adds_location, is_number, is_whole, number, one_of, size, value_error, whole
from funcnet.optim.schedules.base import FormulaSchedule, Schedule
from funcnet.optim.schedules.decay import ExponentialSchedule
from funcnet.optim.schedules.formulas import SHAPES, along, choose, larger
from funcnet.optim.schedules.interpolation import ConstantSchedule, CosineSchedule, LinearSchedule
from funcnet.optim.schedules.piecewise import JoinedSchedule
from funcnet.value import frozen


def _require_warmup(who: str, warmup: Any) -> None:
    if not is_whole(warmup) or warmup < 0:
        raise value_error(who, "warmup must be a whole number of at least 0", repr(warmup))


def _with_warmup(who: str, start: Any, peak: Any, warmup: Any, then: Schedule) -> JoinedSchedule:
    _require_warmup(who, warmup)
    if not is_number(start):
        raise value_error(who, "start must be a finite number", repr(start))
    return JoinedSchedule((LinearSchedule(start, peak, warmup), then), (warmup,)) if warmup else JoinedSchedule((then,), ())


def _decay_steps(who: str, warmup: Any, steps: Any) -> int:
    """Return the number of steps after a warm-up, at least 1."""
    _require_warmup(who, warmup)
    if not is_whole(steps) or steps <= warmup:
        raise value_error(who, f"steps must be a whole number above warmup={warmup}", repr(steps))
    return int(steps - warmup)


@adds_location("WarmupSchedule")
def WarmupSchedule(schedule: Schedule, warmup: int, start: float = 0.0) -> JoinedSchedule:  # noqa: N802 (it makes a value)
    """Linear warm-up before any schedule.

        rate = start + (s(0) - start) t / warmup         t < warmup, s = schedule
        rate = s(t - warmup)                             t ≥ warmup

    Args:
        schedule: Schedule after the warm-up; its step 0 is step ``warmup``.
        warmup: Length of the warm-up, in updates; 0 for none.
        start: Rate at step 0, if there is a warm-up.

    Returns:
        The joined schedule.

    Raises:
        ValueError: If ``schedule`` is not a schedule, or if a number is out of range.

    References:
        Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2.

    >>> from funcnet.optim.schedules.decay import StepSchedule
    >>> schedule = WarmupSchedule(StepSchedule(1.0, 2, gamma=0.5), 2)
    >>> [schedule(t) for t in range(6)]
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.5]
    """
    if not isinstance(schedule, Schedule):
        raise value_error("WarmupSchedule", "schedule must be a schedule", schedule)
    return _with_warmup("WarmupSchedule", start, schedule(0), warmup, schedule)


@adds_location("WarmupConstantSchedule")
def WarmupConstantSchedule(peak: float, warmup: int, start: float = 0.0) -> JoinedSchedule:  # noqa: N802
    """Linear warm-up, then constant.

        rate = start + (peak - start) min(t / warmup, 1)

    Args:
        peak: Rate from step ``warmup`` on.
        warmup: Length of the warm-up, in updates; 0 for none.
        start: Rate at step 0, if there is a warm-up.

    Returns:
        The joined schedule.

    Raises:
        ValueError: If a number is out of range.

    References:
        ``optax.warmup_constant_schedule``.

    >>> [WarmupConstantSchedule(1.0, 2)(t) for t in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return _with_warmup("WarmupConstantSchedule", start, peak, warmup, ConstantSchedule(peak))


@adds_location("WarmupLinearSchedule")
def WarmupLinearSchedule(  # noqa: N802
    peak: float, warmup: int, steps: int, end: float = 0.0, start: float = 0.0
) -> JoinedSchedule:
    """Linear warm-up, then linear decay.

        rate = start + (peak - start) t / warmup                                    t < warmup
        rate = peak + (end - peak) min((t - warmup) / (steps - warmup), 1)          t ≥ warmup

    Args:
        peak: Rate at step ``warmup``.
        warmup: Length of the warm-up, in updates; 0 for none.
        steps: Step at which the rate reaches ``end``, counted from step 0.
        end: Rate from step ``steps`` on.
        start: Rate at step 0, if there is a warm-up.

    Returns:
        The joined schedule.

    Raises:
        ValueError: If a number is out of range, or if ``steps`` is not above ``warmup``.

    References:
        Devlin et al. 2019, "BERT", appendix A.2; thinc's ``warmup_linear``.

    >>> [WarmupLinearSchedule(1.0, 2, 6)(t) for t in range(8)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    left = _decay_steps("WarmupLinearSchedule", warmup, steps)
    return _with_warmup("WarmupLinearSchedule", start, peak, warmup, LinearSchedule(peak, end, left))


@adds_location("WarmupCosineSchedule")
def WarmupCosineSchedule(  # noqa: N802
    peak: float, warmup: int, steps: int, end: float = 0.0, start: float = 0.0, exponent: float = 1.0
) -> JoinedSchedule:
    """Linear warm-up, then cosine decay.

        rate = start + (peak - start) t / warmup                       t < warmup
        rate = end + (peak - end) ((1 + cos(π f)) / 2)ᵖ                t ≥ warmup, f = min((t - warmup) / (steps - warmup), 1)

    Args:
        peak: Rate at step ``warmup``.
        warmup: Length of the warm-up, in updates; 0 for none.
        steps: Step at which the rate reaches ``end``, counted from step 0.
        end: Rate from step ``steps`` on.
        start: Rate at step 0, if there is a warm-up.
        exponent: The exponent p, above 0.

    Returns:
        The joined schedule.

    Raises:
        ValueError: If a number is out of range, or if ``steps`` is not above ``warmup``.

    References:
        ``optax.warmup_cosine_decay_schedule``.

    >>> [WarmupCosineSchedule(1.0, 2, 4)(t) for t in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    left = _decay_steps("WarmupCosineSchedule", warmup, steps)
    return _with_warmup("WarmupCosineSchedule", start, peak, warmup, CosineSchedule(peak, left, end, exponent))


@adds_location("WarmupExponentialSchedule")
def WarmupExponentialSchedule(  # noqa: N802
    peak: float,
    warmup: int,
    gamma: float,
    steps: int = 1,
    staircase: bool = False,
    begin: int = 0,
    end: float | None = None,
    start: float = 0.0,
) -> JoinedSchedule:
    """Linear warm-up, then exponential decay.

        rate = start + (peak - start) t / warmup         t < warmup
        rate = peak γˣ                                   t ≥ warmup, x = max(t - warmup - begin, 0) / steps

    Args:
        peak: Rate at step ``warmup``.
        warmup: Length of the warm-up, in updates; 0 for none.
        gamma: The factor γ for every ``steps`` updates, at least 0.
        steps: Number of updates per factor γ.
        staircase: Whether x is rounded down.
        begin: Number of updates between the warm-up and the decay.
        end: Bound that the rate does not cross; ``None`` for no bound.
        start: Rate at step 0, if there is a warm-up.

    Returns:
        The joined schedule.

    Raises:
        ValueError: If a number is out of range.

    References:
        ``optax.warmup_exponential_decay_schedule``.

    >>> [WarmupExponentialSchedule(1.0, 2, 0.5)(t) for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    then = ExponentialSchedule(peak, gamma, steps, staircase, begin, end)
    return _with_warmup("WarmupExponentialSchedule", start, peak, warmup, then)


@frozen
class WarmupStableDecaySchedule(FormulaSchedule):
    """Linear warm-up, a constant phase, then decay.

        rate = start + (peak - start) t / warmup         t < warmup
        rate = peak                                      warmup ≤ t < warmup + stable
        rate = end + (peak - end) d(f)                   later, f = min((t - warmup - stable) / decay, 1)

    d(f) is 1 - √f for ``"1-sqrt"``, 1 - f for ``"linear"``, and (1 + cos πf) / 2 for ``"cosine"``. Runs of any length can branch
    off from the constant phase.

    Args:
        peak: Rate of the constant phase.
        warmup: Length of the warm-up, in updates; 0 for none.
        stable: Length of the constant phase, in updates.
        decay: Length of the decay, in updates.
        end: Rate after the decay.
        start: Rate at step 0, if there is a warm-up.
        decay_type: ``"1-sqrt"``, ``"linear"`` or ``"cosine"``.

    References:
        Hu et al. 2024, "MiniCPM", section 4; Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
        durations", for the root.

    >>> [WarmupStableDecaySchedule(1.0, 2, 2, 4)(t) for t in range(9)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.2928932188134524, 0.1339745962155614, 0.0]
    """

    peak: float = field(validator=number())
    warmup: int = field(validator=whole(0))
    stable: int = field(validator=whole(0))
    decay: int = field(validator=size)
    end: float = field(default=0.0, validator=number())
    start: float = field(default=0.0, validator=number())
    decay_type: str = field(default="1-sqrt", validator=one_of(*SHAPES))

    def rate_at(self, t: Any) -> Any:
        begin = self.warmup + self.stable
        up = along(t, (self.start, self.peak), (self.warmup,), SHAPES["linear"])
        down = along(larger(t - begin, 0.0), (self.peak, self.end), (self.decay,), SHAPES[self.decay_type])
        return choose(t < begin, up, down)


@frozen
class SlantedTriangularSchedule(FormulaSchedule):
    """Short linear warm-up, then a long linear decay.

        rate = max_rate (1 + p (ratio - 1)) / ratio         p = t / cut for t ≤ cut, cut = ⌊cut_frac · num_steps⌋

    After step cut, p falls from 1 to 0 at step num_steps, where it stays. The paper's p falls at the same pace if cut_frac ·
    num_steps is whole; otherwise slightly faster, to below 0.

    Args:
        max_rate: Rate at step cut.
        num_steps: Length of the schedule, in updates.
        cut_frac: Fraction of the steps on the way up, at least 0 and below 1.
        ratio: ``max_rate`` over the lowest rate, above 0.

    References:
        Howard & Ruder 2018, "Universal language model fine-tuning", eq. 3; thinc's ``slanted_triangular``.

    >>> [SlantedTriangularSchedule(1.0, 6, cut_frac=0.34, ratio=4.0)(t) for t in range(8)]
    [0.25, 0.625, 1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25]
    """

    max_rate: float = field(validator=number())
    num_steps: int = field(validator=size)
    cut_frac: float = field(default=0.1, validator=number(0.0, below=1.0))
    ratio: float = field(default=32.0, validator=number(above=0.0))

    def rate_at(self, t: Any) -> Any:
        low = self.max_rate / self.ratio
        cut = math.floor(self.num_steps * self.cut_frac)
        return along(t, (low, self.max_rate, low), (cut, self.num_steps), SHAPES["linear"])
