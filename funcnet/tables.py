"""Tables: rows of words and numbers, in columns."""


def aligned(rows: list[tuple[str, ...]], words: int) -> list[str]:
    """Write rows of cells as lines: the first ``words`` columns to the left, the others, which are numbers, to the right.

    >>> aligned([("path", "params"), ("0.weight", "12")], 1)
    ['path      params', '0.weight      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths, words) for row in rows]


def _line(row: tuple[str, ...], widths: list[int], words: int) -> str:
    padded = [cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(padded).rstrip()
