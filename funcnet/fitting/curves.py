"""Curves of histories as SVG, with the panels and scales of ``History.plot``, for notebooks and reports."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite

from funcnet.charts import Curve, line_chart
from funcnet.fitting.plotting import SECONDS, Column, Line, colors_of, gapped, is_logarithmic, panels_of, title_of
from funcnet.markup import Markup, element


def curves_of(columns: Mapping[str, Column], epochs: Sequence[int]) -> Markup:
    """Return a chart for each panel of columns of numbers over the epochs; nothing if there are no epochs or columns."""
    if not epochs or not columns:
        return Markup()
    return element(
        "div", *[_chart(title, lines, columns, epochs) for title, lines in panels_of(columns).items()], class_="charts"
    )


def _chart(title: str, lines: list[Line], columns: Mapping[str, Column], epochs: Sequence[int]) -> Markup:
    drawn = [gapped(columns[line.name], len(epochs)) for line in lines]
    rows = zip(lines, drawn, colors_of(lines), strict=True)
    curves = [Curve(line.label, values, color, is_dashed) for line, values, (color, is_dashed) in rows]
    is_log = any(map(isfinite, chain(*drawn))) and is_logarithmic(title, drawn)
    return line_chart(title_of(title, lines), epochs, curves, is_log=is_log, from_zero=title == SECONDS)
