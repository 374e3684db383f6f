"""The line search of L-BFGS: a step length that satisfies the strong Wolfe conditions, as in ``torch.optim.LBFGS``.

    f(t) ≤ f(0) + c₁ t f'(0)      |f'(t)| ≤ c₂ |f'(0)|

The length grows until two lengths bracket a solution, then cubic interpolation narrows the bracket: Nocedal & Wright 2006,
"Numerical optimization", algorithms 3.5 and 3.6.
"""

from collections.abc import Callable
from math import inf, nan, sqrt
from typing import NamedTuple

from torch import Tensor

_C1, _C2 = 1e-4, 0.9


class Point(NamedTuple):
    """A point on the line: its length, the loss, the gradient there, and the slope along the line."""

    t: float
    f: float
    g: Tensor
    slope: float


Evaluate = Callable[[float], Point]


def strong_wolfe(evaluate: Evaluate, first: Point, t: float, size: float, tolerance: float, most: int) -> tuple[Point, int]:
    """Return the point found by the line search, and the number of evaluations.

    Args:
        evaluate: Function of a length that returns the point.
        first: The point of length 0.
        t: The first length to try.
        size: The largest element of the direction.
        tolerance: The search ends once the bracket is too narrow to change any element by this.
        most: Maximal number of evaluations after the first.
    """
    points, done, count = _bracket(evaluate, first, t, most)
    low = 0 if points[0].f <= points[-1].f else 1
    is_slow = False
    while not done and count < most and abs(points[1].t - points[0].t) * size >= tolerance:
        t, is_slow = _keep_inside(_cubic(points[0], points[1]), points, is_slow)
        new, count = evaluate(t), count + 1
        low, done = _narrow(points, low, new, first)
    return points[low], count + 1


def _bracket(evaluate: Evaluate, first: Point, t: float, most: int) -> tuple[list[Point], bool, int]:
    """Return two points around a solution, or a solution and ``True``, and the number of evaluations after the first."""
    last, now = first, evaluate(t)
    for i in range(most):
        if _is_too_far(now, first) or (i > 1 and now.f >= last.f):
            return [last, now], False, i
        if _is_flat(now, first):
            return [now], True, i
        if now.slope >= 0:
            return [last, now], False, i
        t = _cubic(last, now, (now.t + 0.01 * (now.t - last.t), now.t * 10))
        last, now = now, evaluate(t)
    return [first, now], False, most


def _narrow(points: list[Point], low: int, new: Point, first: Point) -> tuple[int, bool]:
    """Put a new point into the bracket; return the index of the lower one, and whether it satisfies the conditions."""
    if _is_too_far(new, first) or new.f >= points[low].f:
        points[1 - low] = new
        return (0 if points[0].f <= points[1].f else 1), False
    done = _is_flat(new, first)
    if not done and new.slope * (points[1 - low].t - points[low].t) >= 0:
        points[1 - low] = points[low]
    points[low] = new
    return low, done


def _is_too_far(point: Point, first: Point) -> bool:
    return point.f > first.f + _C1 * point.t * first.slope


def _is_flat(point: Point, first: Point) -> bool:
    return abs(point.slope) <= -_C2 * first.slope


def _keep_inside(t: float, points: list[Point], is_slow: bool) -> tuple[float, bool]:
    """Move a length away from the end of the bracket if it is near an end twice in a row; return whether it was near once."""
    least, most = sorted([points[0].t, points[1].t])
    margin = 0.1 * (most - least)
    if not min(most - t, t - least) < margin:
        return t, False
    if is_slow or t >= most or t <= least:
        return (most - margin if abs(t - most) < abs(t - least) else least + margin), False
    return t, True


def _cubic(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Return the minimizer of the cubic through two points with their slopes, clamped to ``bounds``, by default the points."""
    least, most = bounds or (min(a.t, b.t), max(a.t, b.t))
    near, far = (a, b) if a.t <= b.t else (b, a)
    d1 = a.slope + b.slope - _ratio(3 * (a.f - b.f), a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (least + most) / 2
    d2 = sqrt(square)
    t = far.t - (far.t - near.t) * _ratio(far.slope + d2 - d1, far.slope - near.slope + 2 * d2)
    return min(max(t, least), most)


def _ratio(a: float, b: float) -> float:
    """Divide by any number, including 0, with the result that floating tensors would have."""
    return a / b if b else inf * a if a else nan
