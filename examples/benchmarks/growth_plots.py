"""The log-log plots of ``growth``: time and peak memory of an axis side by side."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.growth_nets import AXES
from examples.benchmarks.report import FAMILIES

UNITS = {"time": ("ms a step", 1e-3), "memory": ("peak MB", 1.0)}
"""By quantity: the label of the axis, and the factor for the points."""

Lines = dict[str, tuple[list[int], list[float]]]


def draw(axis: str, found: dict[str, Any], path: Path) -> None:
    """Draw time and memory side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    all_sizes = sorted({int(n) for what in UNITS for points in found[what].values() for n in points})
    for axes, what in zip(both, UNITS, strict=True):
        label, factor = UNITS[what]
        lines = {name: ([int(n) for n in points], [factor * y for y in points.values()]) for name, points in found[what].items()}
        for name, (sizes, values) in lines.items():
            axes.plot(sizes, values, label=name, **_style(name))
        if lines:
            _scales(axes, axis, label, all_sizes, lines)
            _slope_one(figure, axes, lines)
    figure.suptitle(AXES[axis].about)
    handles, labels = max((axes.get_legend_handles_labels() for axes in both), key=lambda one: len(one[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _style(name: str) -> dict[str, Any]:
    """Return the style of a line: donated steps have the color of pure steps, with dashes."""
    pure = {"funcnet donated": "funcnet eager", "JAX donated": "JAX jit"}
    look = {"ls": "--", "marker": "s", "mfc": "white"} if name in pure else {"ls": "-", "marker": "o"}
    return {"color": FAMILIES[pure.get(name, name)], "ms": 5, "lw": 1.6, **look}


def _scales(axes: Any, axis: str, label: str, sizes: Sequence[int], lines: Lines) -> None:
    """Set logarithmic scales, with the sizes and plain numbers as ticks."""
    values = [y for _, column in lines.values() for y in column if y > 0]
    low, high = min(values) / 2, max(values) * 2
    axes.set(xscale="log", yscale="log", xlabel=axis if axis in ("width", "depth", "batch") else "sequence length", ylabel=label)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    ticks = y_ticks(low, high)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(low, high)
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axes.minorticks_off()
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def y_ticks(low: float, high: float) -> list[float]:
    """Return at most seven round numbers within two limits: powers of ten, or more if these are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**i for i in range(first, last + 1) for step in steps if low <= step * 10.0**i <= high]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: -(-len(ticks) // 7)]


def _slope_one(figure: Any, axes: Any, lines: Lines) -> None:
    """Draw a dotted line of slope 1 below all lines, with its name."""
    sizes = sorted({n for column, _ in lines.values() for n in column})
    (low, _), first, last = axes.get_ylim(), sizes[0], sizes[-1]
    factor = 0.6 * min(y / n for column, values in lines.values() for n, y in zip(column, values, strict=True) if y > 0)
    start = max(first, 1.1 * low / factor)
    if start >= last:
        return
    axes.plot((start, last), (factor * start, factor * last), ":", color="0.55", lw=1.2)
    figure.draw_without_rendering()
    (x1, y1), (x2, y2) = axes.transData.transform([(start, factor * start), (last, factor * last)])
    middle = math.sqrt(start * last)
    angle = math.degrees(math.atan2(y2 - y1, x2 - x1))
    where = {"rotation": angle, "rotation_mode": "anchor", "ha": "center", "va": "top", "fontsize": 8, "color": "0.45"}
    axes.annotate("slope 1", (middle, factor * middle), textcoords="offset points", xytext=(2, -3), **where)
