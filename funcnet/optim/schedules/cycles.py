"""Schedules that rise and fall in cycles, and the one cycle.

    CosineAnnealingSchedule    rate = end + (start - end) (1 + cos(π t / steps)) / 2
    CosineRestartsSchedule     rate = end + (start - end) (1 + cos(π f)) / 2           f: the part of the cycle that is over
    CyclicSchedule             rate = base_lr + (max_lr - base_lr) h s                 h: height in the triangle, s: scale
    OneCycleSchedule           rate = max_lr / div_factor → max_lr → max_lr / (div_factor final_div_factor)

t is the step, from 0.
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
    """A cosine down and up again: rate = end + (start - end) (1 + cos(π t / steps)) / 2 at step t.

    Args:
        start: Rate at step 0, and again after each 2 ``steps``.
        steps: Length of the way down, torch's ``T_max``.
        end: Lowest rate, torch's ``eta_min``.

    Units:
        ``steps`` are updates; ``start`` and ``end`` are rates.

    Raises:
        ValueError: For rates that are not finite numbers, and for ``steps`` below 1.

    Source:
        ``torch.optim.lr_scheduler.CosineAnnealingLR``.

    >>> [CosineAnnealingSchedule(1.0, 2)(t) for t in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """

    start: float = field(validator=number())
    steps: int = field(validator=size)
    end: float = field(default=0.0, validator=number())

    def rate_at(self, t: Any) -> Any:
        f = t % (2 * self.steps) / self.steps  # first the remainder: the cosine of a large angle is less exact
        return between(self.end, self.start, wave(choose(f <= 1.0, f, 2.0 - f)))


@frozen
class CosineRestartsSchedule(FormulaSchedule):
    """Cosine decays with warm restarts: rate = end + (start - end) (1 + cos(π f)) / 2 at step t.

    f is the part of the cycle that is over. Cycle n = 0, 1, ... has t_0 · t_multⁿ steps. A product with a ``StepSchedule`` lowers
    the peaks.

    Args:
        start: Rate at the beginning of each cycle.
        t_0: Length of the first cycle.
        t_mult: How many times as long each cycle is as the one before.
        end: Rate at the end of each cycle, torch's ``eta_min``.

    Units:
        ``t_0`` is a number of updates; ``start`` and ``end`` are rates.

    Raises:
        ValueError: For rates that are not finite numbers, and a ``t_0`` or ``t_mult`` that is no whole number of at least 1.

    Source:
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
        """Return the number of the cycle: a logarithm, which rounding may put one beside the cycle at its ends."""
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
    """Triangles: rate = base_lr + (max_lr - base_lr) h s at step t, where h goes from 0 to 1 and back in each cycle.

    The scale s is 1 for ``"triangular"``, 2⁻ⁿ in cycle n = 0, 1, ... for ``"triangular2"``, and γᵗ for ``"exp_range"``. The
    momentum that torch cycles in the other direction is ``CyclicSchedule(max_momentum, base_momentum, ...)``.

    Args:
        base_lr: Rate at the ends of each cycle.
        max_lr: Rate at the top of the first cycle.
        step_size_up: Number of steps up.
        step_size_down: Number of steps down, by default as many.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
        gamma: γ of ``"exp_range"``.
        scale_fn: Function that returns s, in place of ``mode``.
        scale_mode: Whether ``scale_fn`` gets the number of the cycle, from 1 (``"cycle"``), or the step (``"iterations"``).

    Units:
        ``step_size_up`` and ``step_size_down`` are updates; ``base_lr`` and ``max_lr`` are rates.

    Raises:
        ValueError: For rates that are not finite numbers, step sizes below 1, a ``gamma`` below 0, another mode, and a
            ``scale_fn`` that is no function; when called, for one that returns something else than a finite number.

    Source:
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
    """Return the steps at which the phases of one cycle end; torch's formulas."""
    if three_phase:
        return pct_start * total - 1, 2 * pct_start * total - 2, total - 1
    return pct_start * total - 1, total - 1


_STRATEGIES = {"cos": SHAPES["cosine"], "linear": SHAPES["linear"]}


@frozen
class OneCycleSchedule(FormulaSchedule):
    """One cycle, up and far down: rates at each step t.

        rate = r₀ → max_lr, up to step pct_start · total_steps - 1,  then → r₁, up to step total_steps - 1

    With ``three_phase``, rate = r₀ → max_lr → r₀ in two equal phases, and then → r₁. Here r₀ = max_lr / div_factor and
    r₁ = r₀ / final_div_factor. Each way is half a cosine, or a straight line. From step total_steps - 1 on the rate stays at r₁,
    where torch raises an error.

    Args:
        max_lr: Highest rate.
        total_steps: Number of steps.
        pct_start: Part of the steps on the way up, between 0 and 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        div_factor: max_lr / r₀.
        final_div_factor: r₀ / r₁.
        three_phase: Whether to come down to r₀ first.

    Units:
        ``total_steps`` are updates; ``max_lr`` is a rate.

    Raises:
        ValueError: For a ``max_lr`` that is not a finite number, ``total_steps`` below 1, a ``pct_start`` outside 0 to 1, factors
            that are not above 0, and another strategy.

    Source:
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
    """The momentum of one cycle, low where the learning rate is high: rates at each step t.

        rate = max_momentum → base_momentum, up to step pct_start · total_steps - 1,  then → max_momentum

    Use it beside a ``OneCycleSchedule`` with the same ``total_steps``, ``pct_start``, ``anneal_strategy`` and ``three_phase``.

    Args:
        total_steps: Number of steps.
        base_momentum: Lowest momentum.
        max_momentum: Momentum at the first and the last step.
        pct_start: Part of the steps on the way down, between 0 and 1.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        three_phase: Whether the way back takes as many steps as the way down, and the momentum then stays.

    Units:
        ``total_steps`` are updates; momenta are numbers.

    Raises:
        ValueError: For momenta that are not finite numbers, ``total_steps`` below 1, a ``pct_start`` outside 0 to 1, and another
            strategy.

    Source:
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
