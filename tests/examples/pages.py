"""What the tests of the reports share: reading a page's tables, and runs that must not be or are stopped."""

from examples.reports.experiment import perform


def cells(page, first):
    """Return the cells of the rows whose first cell is this."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0] == first]


def refuse(*arguments):
    """Stand for a training that must not happen again."""
    raise AssertionError("nothing is left to run")


def interrupt(*arguments):
    """Stand for Ctrl-C."""
    raise KeyboardInterrupt


def stopped_after(runs):
    """Return a ``perform`` that is interrupted when it has been called so many times."""
    left = iter([perform] * runs)

    def stopped(*arguments):
        return next(left, interrupt)(*arguments)

    return stopped


def is_quotient(cell, top, bottom, factor=1):
    """Tell whether a cell can be the factor times the quotient of two others, all of them rounded as they stand."""
    a, b, q = (half_digit(text) for text in (top, bottom, cell))
    low, high = (float(top) - a) / (float(bottom) + b), (float(top) + a) / max(float(bottom) - b, 1e-12)
    return factor * low - q <= float(cell) <= factor * high + q


def half_digit(text):
    """Return half of a unit in the last digit of a number."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])
