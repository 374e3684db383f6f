"""Tables: rows of text and numbers, in columns."""

import html

_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def aligned(rows: list[tuple[str, ...]], words: int) -> list[str]:
    """Write rows of cells as lines: the first ``words`` columns left-aligned, the others, which are numbers, right-aligned.

    >>> aligned([("path", "params"), ("0.weight", "12")], 1)
    ['path      params', '0.weight      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths, words) for row in rows]


def _line(row: tuple[str, ...], widths: list[int], words: int) -> str:
    padded = [cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(padded).rstrip()


def html_table(head: tuple[str, ...], rows: list[tuple[str, ...]], foot: tuple[str, ...] | None = None) -> str:
    """Write rows of cells as an HTML table, with a head and optionally a foot.

    >>> html_table(("a", "b"), [("1", "<2")])
    '<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>&lt;2</td></tr></tbody></table>'
    """
    body = "".join([_html_row("td", row) for row in rows])
    end = "" if foot is None else f"<tfoot>{_html_row('th', foot)}</tfoot>"
    return f"<table><thead>{_html_row('th', head)}</thead><tbody>{body}</tbody>{end}</table>"


def _html_row(tag: str, cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join([f'<{tag}>{html.escape(cell.strip())}</{tag}>' for cell in cells])}</tr>"


def short(number: int) -> str:
    """Write a number with three digits and a unit.

    >>> short(1_234_567)
    '1.23 M'
    """
    power = next((i for i in range(len(_UNITS)) if number < 999.5 * 1000**i), len(_UNITS) - 1)
    return f"{number / 1000**power:.3g} {_UNITS[power]}"
