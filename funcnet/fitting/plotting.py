"""Plots of histories with matplotlib."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Figure = Any
"""A ``matplotlib.figure.Figure`` or ``SubFigure``; matplotlib need not be installed."""
Column = Sequence[float | None]

_VALIDATION, _PART = "validation_", "loss."
_MOST_MARKERS = 30
_WIDEST_LINEAR, _FARTHEST_MEDIAN = 20.0, 5.0
"""An axis is logarithmic if the largest value is more than 20 times the smallest, and more than 5 times the median of a line:
a loss that falls by a constant factor qualifies, a rate on a cosine does not."""
_PARTS, _NORMS, _RATES, SECONDS = "parts of the loss", "norms", "learning rate", "seconds per epoch"
_BY_NAME = (_PARTS, _NORMS, _RATES)
"""Panels whose lines are labeled with their names; the others have one line for training and one for validation."""
_LAST = (_PARTS, _NORMS, _RATES, SECONDS)
"""Panels after those of the loss and the metrics."""
_MAY_BE_LOGARITHMIC = ("loss", *_BY_NAME)
"""Panels that can be logarithmic below 1 too; most metrics below 1 are fractions, such as an accuracy."""


class Line(NamedTuple):
    """One column in a panel: its name, its label in the legend, and its panel."""

    name: str
    label: str
    panel: str

    @property
    def is_validation(self) -> bool:
        """Whether the column was measured on the validation data."""
        return self.name.startswith(_VALIDATION)

    @property
    def base(self) -> str:
        """The name of the measurement, without its data."""
        return self.name.removeprefix(_VALIDATION)


def draw(columns: dict[str, Column], epochs: Sequence[int], figure: Figure = None) -> Figure:
    """Draw columns of numbers over the epochs, with a panel for each kind, and return the figure."""
    panels = panels_of(columns)
    across, down = _grid(len(panels))
    figure = _new(across, down) if figure is None else figure
    for i, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, i + 1)
        _panel(axes, title, lines, columns, epochs)
        if i + across >= len(panels):
            axes.set_xlabel("epoch")
    return figure


def panels_of(columns: Iterable[str]) -> dict[str, list[Line]]:
    """Return the lines of each panel, by its title: first the loss and the metrics, then the panels in ``_LAST``."""
    panels: dict[str, list[Line]] = {}
    for line in sorted(map(_line, columns), key=lambda line: _LAST.index(line.panel) if line.panel in _LAST else -1):
        panels.setdefault(line.panel, []).append(line)
    return panels


def _new(across: int, down: int) -> Figure:
    try:
        from matplotlib import figure as figures  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError("History.plot: matplotlib must be installed; pip install funcnet[plot] installs it") from error
    figure: Figure = figures.Figure(figsize=(max(5.0, 4.2 * across), 3.2 * down), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # inches between a panel and the title below it
    return figure


def _grid(count: int) -> tuple[int, int]:
    across = 2 if count == 4 else min(count, 3)
    return across, math.ceil(count / across)


def _line(name: str) -> Line:
    base = name.removeprefix(_VALIDATION)
    which = "training" if name == base else "validation"
    if base.startswith(_PART):
        part = base.removeprefix(_PART)
        return Line(name, part if name == base else f"{part}, validation", _PARTS)
    if base.split("_")[-1] == "norm":
        return Line(name, base.replace("_", " "), _NORMS)
    if base == "learning_rate" or "lr" in base.replace(".", "_").split("_"):
        return Line(name, base.replace("_", " "), _RATES)
    return Line(name, which, SECONDS if name == "seconds" else base.replace("_", " "))


def _panel(axes: Any, title: str, lines: list[Line], columns: dict[str, Column], epochs: Sequence[int]) -> None:
    """Draw the lines of one panel."""
    from matplotlib.ticker import MaxNLocator  # type: ignore[import-not-found, unused-ignore]

    drawn = {line: gapped(columns[line.name], len(epochs)) for line in lines}
    for (line, values), style in zip(drawn.items(), _styles(lines), strict=True):
        axes.plot(
            epochs, values, **style, label=_escape(line.label), marker="o", ms=3.5, lw=1.4, markevery=_marker_indices(values)
        )
    axes.set_title(_escape(title_of(title, lines)), fontsize="medium")
    _scale(axes, title, [*drawn.values()])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.set_xlim(*_limits(epochs))
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(fontsize="small", frameon=False, ncols=1 + (len(lines) > 6))


def _styles(lines: list[Line]) -> list[dict[str, str]]:
    return [{"color": f"C{color % 10}", "ls": "--" if is_dashed else "-"} for color, is_dashed in colors_of(lines)]


def colors_of(lines: list[Line]) -> list[tuple[int, bool]]:
    """Return the number of each line's color, and whether it is dashed.

    A part of the loss has one color, dashed for the validation data; elsewhere training and validation have two colors.
    """
    if lines[0].panel in _BY_NAME:
        bases = [*dict.fromkeys(line.base for line in lines)]
        return [(bases.index(line.base), line.is_validation) for line in lines]
    return [(int(line.is_validation), False) for line in lines]


def title_of(title: str, lines: list[Line]) -> str:
    """Return the title shown above a panel, which says "validation" if all its lines are of the validation data."""
    only_validation = title not in _BY_NAME and all(line.is_validation for line in lines)
    return f"validation {title}" if only_validation else title


def gapped(column: Column, count: int) -> list[float]:
    """Return a value for each epoch: NaN, which leaves a gap, for a missing or non-finite value."""
    missing = [math.nan] * (count - len(column))
    return missing + [float(value) if value is not None and math.isfinite(value) else math.nan for value in column]


def _marker_indices(values: list[float]) -> list[int]:
    """Return the indices of the markers: every value of a short line, and values without neighbors in a long one."""
    padded = [math.nan, *values, math.nan]
    alone = [i for i in range(len(values)) if math.isnan(padded[i]) and math.isnan(padded[i + 2])]
    return [*range(len(values))] if len(values) <= _MOST_MARKERS else alone


def _scale(axes: Any, title: str, drawn: list[list[float]]) -> None:
    """Choose the axis from the values of each line; write a note if there are none."""
    finite = [value for values in drawn for value in values if math.isfinite(value)]
    if not finite:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color="0.5")
        axes.set_yticks([])
        return
    if title == SECONDS:
        axes.set_ylim(0, 1.1 * max(finite) or 1.0)
    elif is_logarithmic(title, drawn):
        axes.set_yscale("log")


def is_logarithmic(title: str, drawn: list[list[float]]) -> bool:
    """Return whether a linear axis would squeeze most values of the lines together."""
    if title == SECONDS:
        return False
    rows = [sorted(filter(math.isfinite, values)) for values in drawn]
    least, most = min(row[0] for row in rows if row), max(row[-1] for row in rows if row)
    median = min(row[len(row) // 2] for row in rows if row)
    is_wide = least > 0 and most > _WIDEST_LINEAR * least and most > _FARTHEST_MEDIAN * median
    return is_wide and (title in _MAY_BE_LOGARITHMIC or most > 1)


def _limits(epochs: Sequence[int]) -> tuple[float, float]:
    margin = 0.03 * (epochs[-1] - epochs[0]) or 0.5
    return epochs[0] - margin, epochs[-1] + margin


def _escape(words: str) -> str:
    """Escape a name: matplotlib treats ``$`` as math, and leaves a line named ``_x`` out of the legend."""
    words = words.replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words
