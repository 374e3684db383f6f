"""Tables: rows of text and numbers, in columns."""

_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def aligned(rows: list[tuple[str, ...]], words: int) -> list[str]:
    """Format rows of cells as lines: the first ``words`` columns are left-aligned, the others, with numbers, right-aligned.

    >>> aligned([("path", "params"), ("0.weight", "12")], 1)
    ['path      params', '0.weight      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths, words) for row in rows]


def _line(row: tuple[str, ...], widths: list[int], words: int) -> str:
    padded = [cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(padded).rstrip()


def short(number: int) -> str:
    """Format a number with three digits and a unit.

    >>> short(1_234_567)
    '1.23 M'
    """
    power = next((i for i in range(len(_UNITS)) if number < 999.5 * 1000**i), len(_UNITS) - 1)
    return f"{number / 1000**power:.3g} {_UNITS[power]}"
