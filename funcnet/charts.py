"""Line charts as SVG, small enough for notebooks and reports; text and axes have the text color of the surrounding page."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from funcnet.markup import Markup, element, joined

COLORS = ("#3b82c4", "#d9822b", "#3a9d5d", "#c94f4f", "#8a6bbf", "#8c6d46", "#c765a8", "#7f8c8d", "#9a9a2f", "#2fa3b5")
"""Line colors, equally visible on white and on black."""

_WIDTH, _HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 312, 46, 164
_MOST_POINTS, _MOST_MARKERS = 600, 30
_LARGEST, _LEAST = 1e300, 1e-300
"""Bounds of axis values and axis lengths, far enough from the limits of floats to compute with; larger values are clamped."""


class Curve(NamedTuple):
    """One line of a chart.

    Args:
        label: Text in the legend.
        values: A value for each x; NaN leaves a gap.
        color: Index of the color in ``COLORS``; it wraps around.
        is_dashed: Whether the line is dashed.
    """

    label: str
    values: Sequence[float]
    color: int = 0
    is_dashed: bool = False


class Axis(NamedTuple):
    """A map from values between ``low`` and ``high`` to coordinates between ``start`` and ``end``, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the coordinate of a value; values outside the axis are clamped to its ends."""
        inside = min(max(value, self.low), self.high)
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, inside))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def line_chart(
    title: str, xs: Sequence[float], curves: Sequence[Curve], *, is_log: bool = False, from_zero: bool = False
) -> Markup:
    """Return a chart of curves that share an x axis, as an ``svg`` element of class ``chart``.

    Args:
        title: Text above the chart.
        xs: The x coordinates of the values, in any order.
        curves: The curves; their finite values set the range of y.
        is_log: Whether y is logarithmic; all values must then be positive.
        from_zero: Whether y begins at 0.
    """
    finite = [value for curve in curves for value in curve.values if math.isfinite(value)]
    parts = [element("text", title, x=4, y=14, font_weight="600"), *_legend(curves)]
    if finite:
        y = _vertical(min([0.0, *finite] if from_zero else finite), max(finite), is_log)
        x = _horizontal(*map(float, (min(xs), max(xs))))
        parts += [*_grid(y), *_numbers(x, xs), *[_line(x, y, xs, curve) for curve in curves]]
    else:
        parts.append(element("text", "no finite values", x=(_LEFT + _RIGHT) / 2, y=(_TOP + _BOTTOM) / 2, text_anchor="middle"))
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    style = "font: 11px system-ui, sans-serif; fill: currentColor"
    return element("svg", *parts, class_="chart", viewBox=box, role="img", aria_label=title, style=style)


def _within(value: float) -> float:
    return min(max(value, -_LARGEST), _LARGEST)


def _horizontal(low: float, high: float) -> Axis:
    """Return the x axis, which has a length even for a single value."""
    low, high = _within(low), _within(high)
    margin = max(0.5, 1e-6 * abs(low)) if low == high else 0.0
    return Axis(low - margin, high + margin, _LEFT + 6, _RIGHT - 6)


def _vertical(low: float, high: float, is_log: bool) -> Axis:
    """Return the y axis, with a small margin beyond the values."""
    low, high = _within(low), _within(high)
    if is_log:
        return Axis(max(low, _LEAST) / 1.1, max(high, _LEAST) * 1.1, _BOTTOM, _TOP, is_log=True)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    if high - low < _LEAST:
        margin = max(margin, _LEAST)
    return Axis(low - margin * (low != 0), high + margin, _BOTTOM, _TOP)


def ticks(axis: Axis, most: int) -> list[float]:
    """Return round numbers along an axis: 1, 2 or 5 times a power of ten, or multiples of one of these on a linear axis.

    >>> ticks(Axis(0.0, 1.0, 0.0, 1.0), 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(Axis(0.02, 3.0, 0.0, 1.0, is_log=True), 5)
    [0.1, 1.0]
    """
    if axis.is_log:
        powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            found = [d * 10.0**p for p in powers for d in digits if axis.low <= d * 10.0**p <= axis.high]
            if len(found) > 1:
                return found[:: math.ceil(len(found) / most)]
    rough = (axis.high - axis.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _grid(y: Axis) -> Iterator[Markup]:
    for value in ticks(y, 5):
        at = round(y.place(value), 1)
        yield element("line", x1=_LEFT, x2=_RIGHT, y1=at, y2=at, stroke="currentColor", stroke_opacity=0.15)
        yield element("text", f"{value:.6g}", x=_LEFT - 6, y=at + 4, text_anchor="end", fill_opacity=0.75)


def _numbers(x: Axis, xs: Sequence[float]) -> Iterator[Markup]:
    first, last = min(xs), max(xs)
    whole = [value for value in ticks(x, 6) if value == int(value) and first <= value <= last] or [float(xs[0])]
    for value in whole:
        yield element("text", f"{value:.6g}", x=round(x.place(value), 1), y=_BOTTOM + 18, text_anchor="middle", fill_opacity=0.75)


def _legend(curves: Sequence[Curve]) -> Iterator[Markup]:
    if len(curves) < 2:
        return
    at = 4.0
    for curve in curves:
        width = 30 + 6.2 * len(curve.label)
        if at + width > _WIDTH and at > 4:
            break  # the lines still have their tooltips
        yield element("line", x1=at, x2=at + 14, y1=27, y2=27, **_stroke(curve))
        yield element("text", curve.label, x=at + 18, y=31, fill_opacity=0.85)
        at += width


def _stroke(curve: Curve) -> dict[str, object]:
    dashes = "5 3" if curve.is_dashed else None
    return {"stroke": COLORS[curve.color % len(COLORS)], "stroke_width": 1.8, "stroke_dasharray": dashes}


def _line(x: Axis, y: Axis, xs: Sequence[float], curve: Curve) -> Markup:
    """Return a polyline for each run of values, and dots for all values of a short curve and for isolated values."""
    points = [(x.place(at), y.place(v), at, v) if math.isfinite(v) else None for at, v in zip(xs, curve.values, strict=True)]
    runs = list(_runs(points))
    drawn = [" ".join([f"{a:.1f},{b:.1f}" for a, b, *_ in thinned(run)]) for run in runs if len(run) > 1]
    strokes = [element("polyline", points=one, fill="none", stroke_linejoin="round", **_stroke(curve)) for one in drawn]
    is_short = len(points) <= _MOST_MARKERS
    dots = [_dot(curve, *point) for run in runs for point in run if is_short or len(run) == 1]
    return element("g", element("title", curve.label), joined(strokes), joined(dots))


def _dot(curve: Curve, a: float, b: float, at: float, value: float) -> Markup:
    words = element("title", f"{curve.label}, {at:.6g}: {value:.6g}")
    return element("circle", words, cx=round(a, 1), cy=round(b, 1), r=2.4, fill=COLORS[curve.color % len(COLORS)])


Point = tuple[float, float, float, float]


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Yield each run of points between two gaps."""
    run: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def thinned(run: list[Point]) -> list[Point]:
    """Reduce a long run to the smallest and largest y of each of 300 equal parts, in order: the picture looks the same."""
    if len(run) <= _MOST_POINTS:
        return run
    size = math.ceil(len(run) / (_MOST_POINTS / 2))
    parts = [run[i : i + size] for i in range(0, len(run), size)]
    ends = [sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}) for part in parts]
    return [run[0], *[point for part in ends for point in part], run[-1]]
