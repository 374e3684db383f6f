"""Tables in Markdown, one for each family: a line for each layer's value, a line for its gradient, a column for each kind."""

import importlib
import math

import torch

from examples.extremes.judging import Judged, Row

FAMILIES = ("activations", "softmaxes", "losses", "likelihoods", "norms", "reductions")

HEAD = f"""# Extremes

Made by `python -m examples.extremes` with torch {torch.__version__}, on the CPU.

The largest error of each layer for inputs of each kind, in units in the last place (ulps) of the exact result, which mpmath
computes with 250 digits; in parentheses the error of torch.nn with autograd. Correct rounding has an error of at most half an
ulp. If an input is infinite, the exact result is the limit. In norms, distances and attention an element can be a sum of terms
that cancel: their errors are in ulps of the largest element of a row.

- NaN: the result is NaN, though a limit exists.
- ∞: the result or the exact result is infinite, and they differ.
- A line without parentheses: torch.nn has no such layer.
- An empty cell: there is no such input, or no limit.

Inputs are float32 unless the kind names another dtype.

A test checks that no value or gradient of funcnet is NaN, and that no error exceeds both 2 ulps and twice torch.nn's error.
"""


def rows_of(family: str) -> list[Row]:
    """Return the rows of a family."""
    rows: list[Row] = importlib.import_module(f"examples.extremes.{family}").ROWS
    return rows


def page(judged: dict[str, list[Judged]]) -> str:
    """Write the page: the head, and a table for each family."""
    return "\n".join([HEAD, *[f"## {family.capitalize()}\n\n{table(results)}" for family, results in judged.items()]])


def table(results: list[Judged]) -> str:
    """Write the tables of one family; a row begins a new table if it has a kind that the current table lacks."""
    by_row: dict[str, dict[str, Judged]] = {}
    for result in results:
        by_row.setdefault(result.row, {})[result.kind] = result
    tables: list[tuple[list[str], dict[str, dict[str, Judged]]]] = []
    for row, found in by_row.items():
        if not tables or not found.keys() <= {*tables[-1][0]}:
            tables.append(([*found], {}))
        tables[-1][1][row] = found
    return "\n".join(_table(kinds, rows) for kinds, rows in tables)


def _table(kinds: list[str], rows: dict[str, dict[str, Judged]]) -> str:
    """Write one table; the cells of kinds that a row lacks are empty."""
    lines = [["layer", "", *kinds], ["---"] * (len(kinds) + 2)]
    for row, found in rows.items():
        for part, name in enumerate(("value", "gradient")):
            lines.append([row if part == 0 else "", name, *[_cell(found.get(kind), part) for kind in kinds]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(result: Judged | None, part: int) -> str:
    if result is None:
        return ""
    return _figure(result.ours[part]) + (f" ({_figure(result.twin[part])})" if result.twin else "")


def _figure(error: float) -> str:
    """Write an error with two digits."""
    if math.isnan(error):
        return "NaN"
    return "∞" if math.isinf(error) else f"{error:.1f}" if error < 100 else f"{error:.0e}".replace("e+0", "e")
