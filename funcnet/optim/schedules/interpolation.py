"""Constant schedules, and schedules from a start to an end in a number of steps.

t is the step, counted in updates from 0. After its steps, each schedule stays at its end.
"""

from typing import Any

from attrs import field

from funcnet.errors import number, size, whole
from funcnet.optim.schedules.base import FormulaSchedule
from funcnet.optim.schedules.formulas import between, progress, wave
from funcnet.value import frozen


@frozen
class ConstantSchedule(FormulaSchedule):
    """The same rate at every step.

        rate = value         for every t

    Args:
        value: The rate.

    References:
        ``optax.constant_schedule``.

    >>> ConstantSchedule(0.1)(1000)
    0.1
    """

    value: float = field(validator=number())

    def rate_at(self, t: Any) -> Any:
        return t * 0.0 + self.value


@frozen
class LinearSchedule(FormulaSchedule):
    """Straight line from ``start`` to ``end``.

        rate = start + (end - start) f         f = min(max(t - begin, 0) / steps, 1)

    Args:
        start: Rate up to step ``begin``. torch's ``LinearLR`` takes a factor instead.
        end: Rate from step ``begin + steps`` on.
        steps: Length of the line, in updates.
        begin: Step at which the line begins.

    References:
        ``torch.optim.lr_scheduler.LinearLR`` and ``optax.linear_schedule``.

    >>> [LinearSchedule(0.0, 1.0, 4)(t) for t in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    start: float = field(validator=number())
    end: float = field(validator=number())
    steps: int = field(validator=size)
    begin: int = field(default=0, validator=whole(0))

    def rate_at(self, t: Any) -> Any:
        return between(self.start, self.end, progress(t, self.steps, self.begin))


@frozen
class PolynomialSchedule(FormulaSchedule):
    """Polynomial decay.

        rate = end + (start - end) (1 - f)ᵖ         f = min(max(t - begin, 0) / steps, 1), p = power

    Args:
        start: Rate up to step ``begin``.
        steps: Length of the decay, in updates.
        power: The exponent p, above 0; 1 gives a straight line, a larger exponent a faster decay at first.
        end: Rate from step ``begin + steps`` on.
        begin: Step at which the decay begins.

    References:
        ``torch.optim.lr_scheduler.PolynomialLR`` and ``optax.polynomial_schedule``.

    >>> [PolynomialSchedule(1.0, 4, power=2.0)(t) for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    start: float = field(validator=number())
    steps: int = field(validator=size)
    power: float = field(default=1.0, validator=number(above=0.0))
    end: float = field(default=0.0, validator=number())
    begin: int = field(default=0, validator=whole(0))

    def rate_at(self, t: Any) -> Any:
        left = 1.0 - progress(t, self.steps, self.begin)
        return between(self.end, self.start, left**self.power)


@frozen
class CosineSchedule(FormulaSchedule):
    """Cosine decay to ``end``; the rate then stays there.

        rate = end + (start - end) ((1 + cos(π f)) / 2)ᵖ         f = min(t / steps, 1), p = exponent

    ``CosineAnnealingSchedule`` rises again after ``steps``, as torch's ``CosineAnnealingLR`` does.

    Args:
        start: Rate at step 0.
        steps: Length of the decay, in updates.
        end: Rate from step ``steps`` on.
        exponent: The exponent p, above 0.

    References:
        Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts; ``optax.cosine_decay_schedule`` for the exponent.

    >>> [CosineSchedule(1.0, 2)(t) for t in range(4)]
    [1.0, 0.5, 0.0, 0.0]
    """

    start: float = field(validator=number())
    steps: int = field(validator=size)
    end: float = field(default=0.0, validator=number())
    exponent: float = field(default=1.0, validator=number(above=0.0))

    def rate_at(self, t: Any) -> Any:
        left = wave(progress(t, self.steps))
        return between(self.end, self.start, left**self.exponent)
