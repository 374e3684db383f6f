"""The building blocks of schedules: formulas that work for numbers and for 0-d float64 tensors."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def smaller(a: Any, b: float) -> Any:
    """Return the smaller of a number or tensor and a number."""
    return a.clamp(max=b) if isinstance(a, Tensor) else min(a, b)


def larger(a: Any, b: float) -> Any:
    """Return the larger of a number or tensor and a number."""
    return a.clamp(min=b) if isinstance(a, Tensor) else max(a, b)


def choose(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b; a tensor condition gives a float64 tensor."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    a, b = [x if isinstance(x, Tensor) else torch.full_like(condition, x, dtype=torch.float64) for x in (a, b)]
    return torch.where(condition, a, b)


def floor(a: Any) -> Any:
    """Return the largest whole number that is not above a."""
    return a.floor() if isinstance(a, Tensor) else math.floor(a)


def root(a: Any) -> Any:
    """Return √a."""
    return a.sqrt() if isinstance(a, Tensor) else math.sqrt(a)


def whole(a: Any) -> Any:
    """Return the whole number nearest to a; infinity for infinity."""
    return a.round() if isinstance(a, Tensor) else a if math.isinf(a) else float(round(a))


def logarithm(a: Any) -> Any:
    """Return the natural logarithm of a."""
    return a.log() if isinstance(a, Tensor) else math.log(a)


def power(base: float, exponent: Any) -> Any:
    """Return baseᵉˣᵖᵒⁿᵉⁿᵗ; infinity on overflow, as tensors do."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def wave(f: Any) -> Any:
    """Return (1 + cos πf) / 2, which falls from 1 to 0 as f grows from 0 to 1."""
    angle = math.pi * f
    return (1.0 + (torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle))) / 2.0


def progress(t: Any, steps: float, begin: float = 0.0) -> Any:
    """Return the elapsed fraction of a phase at step t, from 0 to 1; a phase without steps has elapsed."""
    if steps <= 0:
        return t * 0.0 + 1.0
    f = (t - begin) / steps
    return f.clamp(0.0, 1.0) if isinstance(f, Tensor) else min(max(f, 0.0), 1.0)


def between(start: float, end: float, f: Any) -> Any:
    """Return start + (end - start) f: exactly start at f = 0, end at f = 1, and both if they are equal."""
    if isinstance(f, Tensor):
        return torch.where(f < 0.5, start + (end - start) * f, end - (end - start) * (1.0 - f))
    return start + (end - start) * f if f < 0.5 else end - (end - start) * (1.0 - f)


Shape = Callable[[Any], Any]

SHAPES: dict[str, Shape] = {
    "linear": lambda f: 1.0 - f,
    "cosine": wave,
    "1-sqrt": lambda f: 1.0 - root(f),
}
"""The remaining fraction of the change in a phase, from 1 to 0, as a function of f, the elapsed fraction of its steps."""


def along(t: Any, values: Sequence[float], ends: Sequence[float], shape: Shape) -> Any:
    """Return the rate at step t of phases that lead from each value to the next, and end at the given steps."""
    begin, rate = 0.0, t * 0.0 + values[0]
    for (start, end), last in zip(pairwise(values), ends, strict=True):
        begins = t > begin if begin > 0 else t >= begin  # at step 0, phases without steps are skipped
        rate = choose(begins, between(end, start, shape(progress(t, last - begin, begin))), rate)
        begin = last
    return rate
