"""Schedules that torch does not have, compared with their formulas at 200 steps."""

import math
from collections.abc import Callable

import numpy as np
import pytest

import funcnet as fn

STEPS = 200


def linear(t: int, start: float, end: float, steps: int) -> float:
    return start + (end - start) * min(t / steps, 1) if steps else end


def polynomial(t: int) -> float:
    """Compute optax.polynomial_schedule(0.3, 0.01, 3, 50, transition_begin=4)."""
    count = min(max(t - 4, 0), 50)
    return (0.3 - 0.01) * (1 - count / 50) ** 3 + 0.01


def exponential(t: int) -> float:
    """Compute optax.exponential_decay(0.3, 7, 0.5, transition_begin=3, staircase=True, end_value=0.01)."""
    return 0.3 if t <= 3 else max(0.3 * 0.5 ** math.floor((t - 3) / 7), 0.01)


def compounding(t: int) -> float:
    """Compute thinc's compounding from 1 to 32, by 1.05 a step."""
    rate = 1.0
    for _ in range(t):
        rate = min(rate * 1.05, 32.0)
    return rate


def inverse_square_root(t: int) -> float:
    """Compute the formula of the paper for 64 features and a warm-up of 30, whose peak is (64 · 30)^-½."""
    return 64**-0.5 * min(max(t, 1) ** -0.5, t * 30**-1.5)


def interpolated(t: int) -> float:
    return float(np.interp(t, (0, 5, 60), (0.0, 0.3, 0.1)))


def interpolated_by_cosines(t: int) -> float:
    """Compute optax.piecewise_interpolate_schedule("cosine", 0.3, {5: 2 / 3, 60: 1 / 2})."""
    for begin, end, a, b in ((0, 5, 0.3, 0.2), (5, 60, 0.2, 0.1)):
        if begin <= t < end:
            return (a + b) / 2 + (a - b) / 2 * math.cos(math.pi * (t - begin) / (end - begin))
    return 0.1


def cosine(t: int) -> float:
    """Compute optax.cosine_decay_schedule(0.3, 70, alpha=1 / 6, exponent=1.5)."""
    decay = (0.5 * (1 + math.cos(math.pi * min(t, 70) / 70))) ** 1.5
    return 0.3 * ((1 - 1 / 6) * decay + 1 / 6)


def warmup_cosine(t: int) -> float:
    """Compute optax.warmup_cosine_decay_schedule(0.1, 0.3, 20, 150, 0.01)."""
    return linear(t, 0.1, 0.3, 20) if t < 20 else 0.01 + 0.29 * (1 + math.cos(math.pi * min((t - 20) / 130, 1))) / 2


def warmup_exponential(t: int) -> float:
    """Compute optax.warmup_exponential_decay_schedule(0.1, 0.3, 20, 10, 0.5)."""
    return linear(t, 0.1, 0.3, 20) if t < 20 else 0.3 * 0.5 ** ((t - 20) / 10)


def warmup_linear(t: int) -> float:
    """Compute thinc's warmup_linear of 0.3, 20 and 150, counted from 0."""
    return 0.3 * (t / 20 if t < 20 else max(0, (150 - t) / (150 - 20)))


def stable(shape: Callable[[float], float]) -> Callable[[int], float]:
    """Compute a warm-up of 10, 50 constant steps, and a decay of 70."""
    return lambda t: linear(t, 0.1, 0.3, 10) if t < 60 else 0.01 + 0.29 * shape(min((t - 60) / 70, 1))


def slanted(t: int) -> float:
    """Compute equation 3 of the paper with T = 200, cut_frac 0.1 and ratio 32."""
    cut = math.floor(200 * 0.1)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / 0.1 - 1))
    return 0.3 * (1 + p * (32 - 1)) / 32


FORMULAS = [
    (fn.PolynomialSchedule(0.3, 50, 3.0, 0.01, 4), polynomial),
    (fn.ExponentialSchedule(0.3, 0.5, 7, True, 3, 0.01), exponential),
    (fn.ExponentialSchedule(0.3, 0.5, 7), lambda t: 0.3 * math.exp(t * math.log(0.5) / 7)),
    (fn.ExponentialSchedule(1.0, 1.05, end=32.0), compounding),
    (fn.InverseTimeSchedule(0.3, 0.5, 7), lambda t: 0.3 / (1 + 0.5 * t / 7)),
    (fn.InverseTimeSchedule(0.3, 0.5, 7, True), lambda t: 0.3 / (1 + 0.5 * math.floor(t / 7))),
    (fn.InverseSquareRootSchedule((64 * 30) ** -0.5, 30), inverse_square_root),
    (fn.InverseSquareRootSchedule(0.3, 10, 0.1, 100), lambda t: linear(t, 0.1, 0.3, 10) if t < 10 else 0.3 / math.sqrt((t + 90) / 100)),
    (fn.PiecewiseConstantSchedule((0.3, 0.2, 0.1), (5, 60)), lambda t: 0.3 if t < 5 else 0.2 if t < 60 else 0.1),
    (fn.PiecewiseInterpolateSchedule((0.0, 0.3, 0.1), (5, 60)), interpolated),
    (fn.PiecewiseInterpolateSchedule((0.3, 0.2, 0.1), (5, 60), "cosine"), interpolated_by_cosines),
    (fn.CosineSchedule(0.3, 70, 0.05, 1.5), cosine),
    (fn.LinearSchedule(0.1, 0.7, 50, 7), lambda t: linear(max(t - 7, 0), 0.1, 0.7, 50)),
    (fn.WarmupCosineSchedule(0.3, 20, 150, 0.01, 0.1), warmup_cosine),
    (fn.WarmupExponentialSchedule(0.3, 20, 0.5, 10, start=0.1), warmup_exponential),
    (fn.WarmupLinearSchedule(0.3, 20, 150), warmup_linear),
    (fn.WarmupConstantSchedule(0.3, 20, 0.1), lambda t: linear(t, 0.1, 0.3, 20)),
    (fn.WarmupSchedule(fn.StepSchedule(0.3, 7), 20, 0.1), lambda t: linear(t, 0.1, 0.3, 20) if t < 20 else 0.3 * 0.1 ** ((t - 20) // 7)),
    (fn.WarmupStableDecaySchedule(0.3, 10, 50, 70, 0.01, 0.1), stable(lambda f: 1 - math.sqrt(f))),
    (fn.WarmupStableDecaySchedule(0.3, 10, 50, 70, 0.01, 0.1, "linear"), stable(lambda f: 1 - f)),
    (fn.WarmupStableDecaySchedule(0.3, 10, 50, 70, 0.01, 0.1, "cosine"), stable(lambda f: (1 + math.cos(math.pi * f)) / 2)),
    (fn.SlantedTriangularSchedule(0.3, 200), slanted),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "formula"), FORMULAS, ids=lambda value: repr(value) if isinstance(value, fn.Schedule) else ""
)
def test_the_rates_are_those_of_the_formula(schedule: fn.Schedule, formula: Callable[[int], float]) -> None:
    """Each of 200 steps is compared."""
    assert [schedule(t) for t in range(STEPS)] == pytest.approx([formula(t) for t in range(STEPS)], rel=1e-12, abs=1e-16)


def test_a_schedule_is_a_batch_size() -> None:
    """The values are rounded: whole numbers that grow to the bound."""
    sizes = [round(fn.ExponentialSchedule(4.0, 1.5, end=32.0)(epoch)) for epoch in range(8)]
    assert sizes == [4, 6, 9, 14, 20, 30, 32, 32]
