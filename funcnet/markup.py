"""HTML and SVG as text: elements whose content is escaped, and the tables and styles of notebooks and reports.

The output is self-contained: it has no scripts, fonts or images. Colors follow the surrounding page, light or dark.
"""

import html
import re
from collections.abc import Iterable, Sequence

STYLE = """
.funcnet { font-family: system-ui, sans-serif; font-size: 13px; line-height: 1.45; color: inherit; }
.funcnet table { font-size: inherit; color: inherit; }
.funcnet table { border-collapse: collapse; margin: 6px 0; font-variant-numeric: tabular-nums; }
.funcnet th, .funcnet td { padding: 2px 10px; border-bottom: 1px solid rgba(128, 128, 128, 0.3); }
.funcnet th, .funcnet td { text-align: right; white-space: nowrap; background: none; }
.funcnet th.word, .funcnet td.word { text-align: left; }
.funcnet tfoot th { border-bottom: none; }
.funcnet code { font-family: ui-monospace, monospace; font-size: 12px; color: inherit; background: none; padding: 0; }
.funcnet details { margin: 2px 0; }
.funcnet summary { cursor: pointer; }
.funcnet .inside { margin-left: 18px; }
.funcnet .note { opacity: 0.7; margin-left: 8px; white-space: nowrap; }
.funcnet .charts { display: flex; flex-wrap: wrap; gap: 8px 20px; margin-bottom: 8px; }
.funcnet .chart { width: 300px; max-width: 100%; height: auto; }
.funcnet .scroll { overflow-x: auto; }
"""
"""The style of everything inside an element of class ``funcnet``."""


_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Control characters and lone surrogates, which are not allowed in HTML and XML."""


class Markup(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def escaped(content: object) -> Markup:
    """Escape text as HTML, with U+FFFD for characters that are not allowed; ``Markup`` is returned unchanged.

    >>> escaped("<2"), escaped(Markup("<b>2</b>"))
    ('&lt;2', '<b>2</b>')
    """
    return content if isinstance(content, Markup) else Markup(html.escape(_UNWRITABLE.sub("\ufffd", str(content))))


def joined(parts: Iterable[object]) -> Markup:
    """Concatenate the parts, each escaped."""
    return Markup("".join([escaped(part) for part in parts]))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """Return an element of HTML or SVG with escaped content and attributes.

    Args:
        tag: The name of the element.
        *content: Text, which is escaped, and ``Markup``, which is not.
        **attributes: The attributes. ``class_`` becomes ``class``, ``stroke_width`` becomes ``stroke-width``; an attribute of
            ``None`` is omitted.

    >>> element("td", "a & b", class_="word")
    '<td class="word">a &amp; b</td>'
    """
    given = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None]
    words = "".join([f' {name}="{escaped(str(value))}"' for name, value in given])
    return Markup(f"<{tag}{words}>{joined(content)}</{tag}>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], foot: Sequence[str] | None = None, *, words: int = 0) -> Markup:
    """Return a table with a head, rows of cells and an optional foot; its first ``words`` columns are aligned to the left.

    >>> table(("a", "b"), [("1", "<2")])
    '<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>&lt;2</td></tr></tbody></table>'
    """
    body = joined([_row("td", row, words) for row in rows])
    end = Markup() if foot is None else element("tfoot", _row("th", foot, words))
    return element("table", element("thead", _row("th", head, words)), element("tbody", body), end)


def _row(tag: str, cells: Sequence[object], words: int) -> Markup:
    kinds = [("word" if i < words else None, cell) for i, cell in enumerate(cells)]
    return element("tr", *[element(tag, cell if isinstance(cell, Markup) else str(cell).strip(), class_=k) for k, cell in kinds])


def folded(title: object, *content: object, is_open: bool = False) -> Markup:
    """Return content under a title; a click on the title shows or hides it."""
    return element("details", element("summary", title), *content, open="" if is_open else None)


def output(*content: object) -> str:
    """Return the HTML that a notebook shows for a value: the content with its style."""
    return str(element("div", element("style", Markup(STYLE)), *content, class_="funcnet"))
