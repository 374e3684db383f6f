"""Helpers of the tests of the reports: reading a page's tables, and trainings that must not run or are interrupted."""

from examples.reports.experiment import perform


def cells(page, first):
    """Return the cells of the rows that begin with the given cell."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0] == first]


def refuse(*arguments):
    """Replace a training that must not run again."""
    raise AssertionError("nothing is left to run")


def interrupt(*arguments):
    """Replace a training with Ctrl-C."""
    raise KeyboardInterrupt


def stopped_after(runs):
    """Return a ``perform`` that is interrupted after the given number of calls."""
    left = iter([perform] * runs)

    def stopped(*arguments):
        return next(left, interrupt)(*arguments)

    return stopped


def is_quotient(cell, top, bottom, factor=1):
    """Return whether a cell can be the factor times the quotient of two others, given their rounding."""
    a, b, q = (half_digit(text) for text in (top, bottom, cell))
    low, high = (float(top) - a) / (float(bottom) + b), (float(top) + a) / max(float(bottom) - b, 1e-12)
    return factor * low - q <= float(cell) <= factor * high + q


def half_digit(text):
    """Return half a unit in the last digit of a number."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])
