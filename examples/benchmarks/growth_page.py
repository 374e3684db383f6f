"""The page of ``growth``: exponents, ratios at the largest sizes, and log-log plots."""

import datetime
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks.growth_nets import AXES, SKIPPED
from examples.benchmarks.report import FAMILIES, cell, table

PAIRS = (("funcnet eager", "torch.nn eager"), ("funcnet eager", "JAX jit"), ("funcnet compiled", "JAX jit"))
TOLERANCE = 0.05
SMALL = {"time": 0.0, "memory": 4.0}
UNITS = {"time": "µs a step", "memory": "peak MB"}

EXPLANATION = f"""\
An exponent is the slope of a line in the log-log plots: "last" between the two largest sizes that both contenders of a row have,
"all" by least squares through all points of a contender. Times are the least of two runs. The verdict is "above" if the last
slope of funcnet is more than {TOLERANCE:g} above the other's in each run: a difference that does not repeat is noise, and one of
{TOLERANCE:g} is 7 % more cost for four times the size. "Noise" is the change of the difference between the runs. The slope over
all points depends on overhead at small sizes: a contender with less overhead has a steeper line. "At the largest size" is
funcnet's cost divided by the other's. Of memory, points below {SMALL["memory"]:g} MB do not count: they show how the allocator
works. A line ends before a step that is expected to take more than half a second, or 6 GB."""

Points = dict[str, float]


def head() -> str:
    """Write the head of the page: command, versions, machine, date."""
    import torch

    from examples.reports.__main__ import processor

    try:
        import jax

        peer = f", JAX {jax.__version__}"
    except ImportError:
        peer = ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}{peer}"
    command = "`python -m examples.benchmarks.growth --out examples/benchmarks/results/growth`"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"# How cost grows\n\n{command},\n{versions}, {processor()}, one thread, float32, {date}."


def _logs(points: Points, least: float) -> list[tuple[float, float]]:
    return [(math.log(int(n)), math.log(y)) for n, y in points.items() if y > least]


def slope(points: Points, least: float = 0.0) -> float | None:
    """Return the slope of the least-squares line in log-log scale; ``None`` for fewer than two points."""
    logs = _logs(points, least)
    if len(logs) < 2:
        return None
    mx, my = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mx) * (y - my) for x, y in logs) / sum((x - mx) ** 2 for x, _ in logs)


def last_slopes(one: Points, other: Points, least: float = 0.0) -> tuple[float | None, float | None]:
    """Return the slopes of two lines between the two largest sizes that both have."""
    shared = [n for n in one if n in other and one[n] > least and other[n] > least][-2:]
    both = [slope({n: points[n] for n in shared}, least) for points in (one, other)]
    return both[0], both[1]


def differences(found: dict[str, Any], what: str, ours: str, theirs: str) -> list[float]:
    """Return by how much the last slope of one contender is above the other's, in each run."""
    runs = [found[name] for name in found if name.startswith(f"{what}, run") and found[name]] or [found[what]]
    both = [last_slopes(run.get(ours, {}), run.get(theirs, {}), SMALL[what]) for run in runs]
    return [one - other for one, other in both if one is not None and other is not None]


def verdict(differences: list[float]) -> str:
    """Say whether an exponent is above the other in each run."""
    if not differences:
        return "—"
    return "above" if min(differences) > TOLERANCE else "not above"


def _row(axis: str, what: str, found: dict[str, Any], ours: str, theirs: str) -> list[str] | None:
    lines = found[what]
    if ours not in lines or theirs not in lines:
        return None
    apart = differences(found, what, ours, theirs)
    noise = max(apart) - min(apart) if len(apart) > 1 else None
    one, other, least = lines[ours], lines[theirs], SMALL[what]
    mine, its = last_slopes(one, other, least)
    shared = [n for n in one if n in other]
    ratio = f"{cell(one[shared[-1]] / other[shared[-1]])} at {shared[-1]}" if shared else "—"
    numbers = [cell(number) for number in (mine, its, slope(one, least), slope(other, least))]
    return [
        axis,
        what,
        f"{ours}, {theirs}",
        *numbers,
        ratio,
        cell(noise),
        verdict(apart),
    ]


def exponents(results: dict[str, Any]) -> str:
    """Write the table of exponents: a row for each axis, quantity and pair of contenders."""
    rows = [_row(axis, what, found, *pair) for axis, found in results.items() for what in ("time", "memory") for pair in PAIRS]
    header = [
        "axis",
        "what",
        "contenders",
        "last, ours",
        "last, theirs",
        "all, ours",
        "all, theirs",
        "at the largest size",
        "noise",
        "exponent",
    ]
    return table(header, [row for row in rows if row])


def _points(what: str, lines: dict[str, Points], sizes: tuple[int, ...]) -> str:
    digits = {"time": 0, "memory": 1}[what]
    rows = [[name, *[cell(points.get(str(n)), digits) for n in sizes]] for name, points in lines.items()]
    return table([UNITS[what], *map(str, sizes)], rows)


def sections(results: dict[str, Any]) -> Iterator[str]:
    """Yield the plot and the points of each axis."""
    for axis, found in results.items():
        one = AXES[axis]
        yield f"## {axis}\n\n{one.about}.\n\n![{axis}]({axis}.png)"
        yield from (_points(what, found[what], one.sizes) for what in ("time", "memory"))


def write(folder: Path, kept: dict[str, Any]) -> str:
    """Draw the plots, write the page, and return it."""
    results = kept["results"]
    for axis, found in results.items():
        draw(axis, found, folder / f"{axis}.png")
    notes = kept["notes"] + [f"{axis}: {name} is not measured: {why}" for (name, axis), why in SKIPPED.items() if axis in results]
    parts = [kept["head"], EXPLANATION, "## Exponents", exponents(results), *sections(results)]
    parts += ["## Notes", "\n".join(f"- {note}" for note in notes)] if notes else []
    text = "\n\n".join(parts) + "\n"
    (folder / "GROWTH.md").write_text(text)
    return text


def draw(axis: str, found: dict[str, dict[str, Points]], path: Path) -> None:
    """Draw time and memory side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axes, what in zip(both, ("time", "memory"), strict=True):
        for name, points in found[what].items():
            axes.plot([int(n) for n in points], [*points.values()], "o-", color=FAMILIES[name], label=name, ms=5, lw=1.8)
        _finish(axes, axis, UNITS[what], found[what])
    figure.suptitle(AXES[axis].about)
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _finish(axes: Any, axis: str, unit: str, lines: dict[str, Points]) -> None:
    """Set logarithmic scales with the sizes as ticks, and a dotted line of slope 1 below the lines."""
    sizes = sorted({int(n) for points in lines.values() for n in points})
    if not sizes:
        return
    axes.set(xscale="log", yscale="log", xlabel=axis if axis in ("width", "depth", "batch") else "sequence length", ylabel=unit)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    ends = [points[str(sizes[-1])] for points in lines.values() if str(sizes[-1]) in points]
    low, high = (math.floor(math.log10(axes.get_ylim()[0])), math.ceil(math.log10(axes.get_ylim()[1])))
    axes.set_yticks([10.0**i for i in range(low, high + 1)])
    axes.set_ylim(10.0**low, 10.0**high)
    end, under = sizes[-1], 0.4 * min(ends)
    start = max(sizes[0], end * 10.0**low / under)
    axes.plot((start, end), (under * start / end, under), ":", color="0.6", lw=1)
    axes.annotate("slope 1", (end, under), textcoords="offset points", xytext=(4, -10), ha="right", fontsize=8, color="0.5")
