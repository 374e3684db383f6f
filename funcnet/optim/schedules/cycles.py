"""Schedules that rise and fall in cycles.

t is the step, counted in updates from 0.
"""

import math
from typing import Any

from attrs import field

from funcnet.errors import flag, number, one_of, size, size_or_none, value_error
from funcnet.optim.schedules.base import FormulaSchedule, number_of
from funcnet.optim.schedules.formulas import SHAPES, along, between, choose, floor, logarithm, power, smaller, wave, whole
from funcnet.value import frozen


@frozen
class CosineAnnealingSchedule(FormulaSchedule):
    """Cosine that anneals the rate and raises it again.

        rate = end + (start - end) (1 + cos(π t / steps)) / 2

    Args:
        start: Rate at step 0, and again after every 2 · ``steps`` updates.
        steps: Number of updates from ``start`` to ``end``, torch's ``T_max``.
        end: Lowest rate, torch's ``eta_min``.

    References:
        ``torch.optim.lr_scheduler.CosineAnnealingLR``.

    >>> [CosineAnnealingSchedule(1.0, 2)(t) for t in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """

    start: float = field(validator=number())
    steps: int = field(validator=size)
    end: float = field(default=0.0, validator=number())

    def rate_at(self, t: Any) -> Any:
        f = t % (2 * self.steps) / self.steps  # the remainder first: the cosine of a large angle is less exact
        return between(self.end, self.start, wave(choose(f <= 1.0, f, 2.0 - f)))


@frozen
class CosineRestartsSchedule(FormulaSchedule):
    """Cosine decays with warm restarts.

        rate = end + (start - end) (1 + cos(π f)) / 2         f = (t - b) / T, in the cycle of T steps that begins at step b

    Cycle n = 0, 1, ... has T = t_0 · t_multⁿ steps. Multiply by a ``StepSchedule`` to lower the peaks.

    Args:
        start: Rate at the beginning of each cycle.
        t_0: Length of the first cycle, in updates.
        t_mult: Factor by which each cycle is longer than the previous one.
        end: Rate at the end of each cycle, torch's ``eta_min``.

    References:
        Loshchilov & Hutter 2017, "SGDR", eq. 5; ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``.

    >>> [CosineRestartsSchedule(1.0, 2, t_mult=2)(t) for t in range(7)]
    [1.0, 0.5, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 1.0]
    """

    start: float = field(validator=number())
    t_0: int = field(validator=size)
    t_mult: int = field(default=1, validator=size)
    end: float = field(default=0.0, validator=number())

    def rate_at(self, t: Any) -> Any:
        if self.t_mult == 1:
            f = t % self.t_0 / self.t_0
        else:
            n = self._cycle(t)
            f = (t - self._begin(n)) / (self.t_0 * whole(power(float(self.t_mult), n)))
        return between(self.end, self.start, wave(f))

    def _cycle(self, t: Any) -> Any:
        """Return the number of the cycle: a logarithm, corrected where rounding misses it by one at the ends of a cycle."""
        n = floor(logarithm(t / self.t_0 * (self.t_mult - 1) + 1.0) / math.log(self.t_mult))
        n = choose(t < self._begin(n), n - 1.0, n + 0.0)
        return choose(t < self._begin(n + 1.0), n, n + 1.0)

    def _begin(self, n: Any) -> Any:
        """Return the step at which a cycle begins: t_0 (t_multⁿ - 1) / (t_mult - 1)."""
        return self.t_0 * (whole(power(float(self.t_mult), n)) - 1.0) / (self.t_mult - 1)


def _function_or_none(value: Any, attribute: Any, got: Any) -> None:
    if got is not None and not callable(got):
        raise value_error(type(value).__name__, f"{attribute.name} must be a function, or None", got)


@frozen
class CyclicSchedule(FormulaSchedule):
    """Triangular cycles between two rates.

        rate = base_lr + (max_lr - base_lr) h(t) s         h(t) rises from 0 to 1 and falls back in each cycle

    The scale s is 1 for ``"triangular"``, 2⁻ⁿ in cycle n = 0, 1, ... for ``"triangular2"``, and γᵗ for ``"exp_range"``. torch
    also cycles the momentum, in the opposite direction: use ``CyclicSchedule(max_momentum, base_momentum, ...)`` for that.

    Args:
        base_lr: Rate at both ends of each cycle.
        max_lr: Rate at the peak of the first cycle.
        step_size_up: Number of updates on the way up.
        step_size_down: Number of updates on the way down; ``None`` for ``step_size_up``.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
        gamma: The factor γ of ``"exp_range"``, at least 0.
        scale_fn: Function that returns s, instead of ``mode``.
        scale_mode: Argument of ``scale_fn``: ``"cycle"``, the number of the cycle from 1, or ``"iterations"``, the step.

    Raises:
        ValueError: If ``scale_fn`` is not a function; from a call, if it does not return a finite number.

    References:
        Smith 2017, "Cyclical learning rates for training neural networks"; ``torch.optim.lr_scheduler.CyclicLR``.

    >>> [CyclicSchedule(0.0, 1.0, 2, mode="triangular2")(t) for t in range(9)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.0]
    """

    base_lr: float = field(validator=number())
    max_lr: float = field(validator=number())
    step_size_up: int = field(default=2000, validator=size)
    step_size_down: int | None = field(default=None, validator=size_or_none)
    mode: str = field(default="triangular", validator=one_of("triangular", "triangular2", "exp_range"))
    gamma: float = field(default=1.0, validator=number(0.0))
    scale_fn: Any = field(default=None, validator=_function_or_none)
    scale_mode: str = field(default="cycle", validator=one_of("cycle", "iterations"))

    def rate_at(self, t: Any) -> Any:
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        i = t % (up + down)
        height = choose(i <= up, i / up, (up + down - i) / down)
        return self.base_lr + (self.max_lr - self.base_lr) * height * self._scale(t, floor(t / (up + down)))

    def _scale(self, t: Any, cycle: Any) -> Any:
        if self.scale_fn is not None:
            return number_of(self, "scale_fn", self.scale_fn, cycle + 1 if self.scale_mode == "cycle" else t)
        if self.mode == "triangular":
            return 1.0
        return power(0.5, cycle) if self.mode == "triangular2" else power(self.gamma, t)


def _ends(total: int, pct_start: float, three_phase: bool) -> tuple[float, ...]:
    """Return the steps at which the phases of one cycle end, by torch's formulas."""
    if three_phase:
        return pct_start * total - 1, 2 * pct_start * total - 2, total - 1
    return pct_start * total - 1, total - 1


_STRATEGIES = {"cos": SHAPES["cosine"], "linear": SHAPES["linear"]}


@frozen
class OneCycleSchedule(FormulaSchedule):
    """One cycle: the learning rate rises to a peak and decays far below its start.

        rate = r₀ → max_lr → r₁         r₀ = max_lr / div_factor, r₁ = r₀ / final_div_factor
                                        max_lr at t = pct_start · total_steps - 1, r₁ from t = total_steps - 1 on

    Each arrow is half a cosine, or a straight line. With ``three_phase`` the rate returns to r₀ in as many steps as it rose, and
    then goes to r₁. After ``total_steps`` it stays at r₁; torch raises an error.

    Args:
        max_lr: Highest rate.
        total_steps: Length of the cycle, in updates.
        pct_start: Fraction of the steps on the way up, from 0 to 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        div_factor: max_lr / r₀, above 0.
        final_div_factor: r₀ / r₁, above 0.
        three_phase: Whether to return to r₀ first.

    References:
        Smith & Topin 2019, "Super-convergence"; ``torch.optim.lr_scheduler.OneCycleLR``.

    >>> [round(OneCycleSchedule(1.0, 5, pct_start=0.4, anneal_strategy="linear")(t), 3) for t in range(5)]
    [0.04, 1.0, 0.667, 0.333, 0.0]
    """

    max_lr: float = field(validator=number())
    total_steps: int = field(validator=size)
    pct_start: float = field(default=0.3, validator=number(0.0, at_most=1.0))
    anneal_strategy: str = field(default="cos", validator=one_of("cos", "linear"))
    div_factor: float = field(default=25.0, validator=number(above=0.0))
    final_div_factor: float = field(default=1e4, validator=number(above=0.0))
    three_phase: bool = field(default=False, validator=flag)

    def rate_at(self, t: Any) -> Any:
        first = self.max_lr / self.div_factor
        middle = (first,) if self.three_phase else ()
        values = first, self.max_lr, *middle, first / self.final_div_factor
        ends = _ends(self.total_steps, self.pct_start, self.three_phase)
        return along(smaller(t, self.total_steps - 1), values, ends, _STRATEGIES[self.anneal_strategy])


@frozen
class OneCycleMomentumSchedule(FormulaSchedule):
    """Momentum for one cycle: low while the learning rate is high.

        rate = max_momentum → base_momentum → max_momentum         base_momentum at t = pct_start · total_steps - 1

    Combine it with a ``OneCycleSchedule`` of the same ``total_steps``, ``pct_start``, ``anneal_strategy`` and ``three_phase``.

    Args:
        total_steps: Length of the cycle, in updates.
        base_momentum: Lowest momentum.
        max_momentum: Momentum at the first and the last step.
        pct_start: Fraction of the steps on the way down, from 0 to 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        three_phase: Whether the way back takes as many steps as the way down; the momentum then stays constant.

    References:
        Smith & Topin 2019, "Super-convergence"; ``torch.optim.lr_scheduler.OneCycleLR``.

    >>> [round(OneCycleMomentumSchedule(5, pct_start=0.4)(t), 3) for t in range(5)]
    [0.95, 0.85, 0.875, 0.925, 0.95]
    """

    total_steps: int = field(validator=size)
    base_momentum: float = field(default=0.85, validator=number())
    max_momentum: float = field(default=0.95, validator=number())
    pct_start: float = field(default=0.3, validator=number(0.0, at_most=1.0))
    anneal_strategy: str = field(default="cos", validator=one_of("cos", "linear"))
    three_phase: bool = field(default=False, validator=flag)

    def rate_at(self, t: Any) -> Any:
        values = self.max_momentum, self.base_momentum, *[self.max_momentum] * (1 + self.three_phase)
        ends = _ends(self.total_steps, self.pct_start, self.three_phase)
        return along(smaller(t, self.total_steps - 1), values, ends, _STRATEGIES[self.anneal_strategy])
