"""Docstrings as reStructuredText: formulas keep their lines, sections become fields, and everything else is plain prose.

The docstrings are written for ``help()`` and editors: Google's sections, formulas indented or aligned, code in double backquotes,
and no other markup. ``converted`` turns these lines into reStructuredText that shows the same text:

    an indented or aligned block     a literal block of the class ``formula``, or Python where it is a program
    ``Args:``, ``Raises:``, ...      fields, whose entries may go on over several lines and paragraphs
    ``name``                         a literal, or a link where it names something public
    * | _ and single backquotes      themselves
"""

import ast
import re
from collections.abc import Callable, Iterator
from itertools import takewhile
from textwrap import dedent

Lines = list[str]
Linked = Callable[[str], str | None]
"""Returns the full name of what a literal names, or ``None``."""

_HEADER = re.compile(
    r"(Args|Attributes|Shape|Params|Cache|State|Units|Returns|Yields|Raises|Source|References|Notes?|Examples?):$"
)
_ITEM = re.compile(r"(-|\d+\.) (?=\S)")
_ENTRY = re.compile(r"(\*{0,2}[\w.]+(?:, [\w.]+)*): +(?=\S)|(\*{0,2}[\w.]+):$")
_SHAPE = re.compile(r"(\w[\w']*(, \w[\w']*)*|\([\w, ']+\)) *(\(|:|→)|\(")
_SPAN = re.compile(r"``(.+?)``")


def indent_of(line: str) -> int:
    """Return the number of spaces at the start of a line."""
    return len(line) - len(line.lstrip(" "))


def converted(lines: Lines, linked: Linked = lambda name: None) -> Lines:
    """Return the lines of a docstring as reStructuredText."""
    return [line for block in blocks([line.rstrip() for line in lines]) for line in [*_block(block, linked), ""]]


def blocks(lines: Lines) -> Iterator[Lines]:
    """Yield paragraphs, sections, lists, examples and indented blocks, each as its lines."""
    i = 0
    while i < len(lines):
        if not lines[i]:
            i += 1
            continue
        length = _length(lines, i)
        yield _stripped(lines[i : i + length])
        i += length


def _length(lines: Lines, i: int) -> int:
    """Return how many lines the block that begins at line i has."""
    rest, first = lines[i:], lines[i]
    if first.startswith(">>>"):
        return len([*takewhile(bool, rest)])
    if indent_of(first):
        return _indented(rest)
    if _HEADER.match(first) or _ITEM.match(first):
        return 1 + _indented(rest[1:])
    return 1 + len([*takewhile(lambda line: line and not indent_of(line) and not _starts(line), rest[1:])])


def _indented(lines: Lines) -> int:
    return len([*takewhile(lambda line: not line or indent_of(line), lines)])


def _starts(line: str) -> bool:
    """Return whether a line begins a block without a blank line before it."""
    return bool(line.startswith(">>>") or _HEADER.match(line) or _ITEM.match(line))


def _stripped(lines: Lines) -> Lines:
    """Return lines without the empty ones at their end."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def _block(lines: Lines, linked: Linked) -> Lines:
    first = lines[0]
    if first.startswith(">>>"):
        return lines
    if header := _HEADER.match(first):
        return _section(header[1], dedent("\n".join(lines[1:])).split("\n"), linked)
    if indent_of(first) or is_aligned(lines):
        return literal(dedent("\n".join(lines)).split("\n"))
    if item := _ITEM.match(first):
        return _item(item, lines, linked)
    return [prose(" ".join(lines), linked)]


def is_aligned(lines: Lines) -> bool:
    """Return whether lines are aligned in columns, like formulas, rather than prose."""
    return len(lines) > 1 and 2 * sum(re.search(r"\S {2,}\S", line) is not None for line in lines) >= len(lines)


def literal(lines: Lines) -> Lines:
    """Return a block whose lines stay unchanged: a program, or a formula, whose text is all code and needs no backquotes."""
    if is_program(lines):
        return [".. code-block:: python", "", *[f"   {line}" if line else "" for line in lines]]
    formula = [line.replace("``", "") for line in lines]
    return [".. code-block:: text", "   :class: formula", "", *[f"   {line}" if line else "" for line in formula]]


def is_program(lines: Lines) -> bool:
    """Return whether lines are Python with an import or a call of a dotted name; formulas have neither, even if they parse."""
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return any(re.search(r"\b[a-z]\w*\.\w+\(|\bimport |^(def|for|with) ", line) for line in lines)


def _item(item: re.Match[str], lines: Lines, linked: Linked) -> Lines:
    mark = "- " if item[1] == "-" else f"{item[1]} "
    inner = converted([lines[0][item.end() :], *dedent("\n".join(lines[1:])).split("\n")], linked)
    return _hanging(mark, _stripped(inner))


def _hanging(mark: str, lines: Lines) -> Lines:
    """Return lines after a mark, with the later ones indented to match."""
    first, *more = lines or [""]
    return [f"{mark}{first}".rstrip(), *[f"{' ' * len(mark)}{line}" if line else "" for line in more]]


def _field(name: str, lines: Lines, linked: Linked) -> Lines:
    """Return a field of a field list with a body in prose."""
    body = _stripped(converted(lines, linked))
    return [f":{name}:", "", *[f"   {line}" if line else "" for line in body]]


# sections


def _section(name: str, lines: Lines, linked: Linked) -> Lines:
    if name in ("Args", "Raises", "Yields", "Returns"):
        return _arguments(name, lines, linked)
    if name == "Shape":
        return _field(name, [f"- {line}" for line in shapes(lines)] if len(shapes(lines)) > 1 else shapes(lines), linked)
    if name in ("Attributes", "Params", "State") and any(_ENTRY.match(line) for line in lines):
        return _field(name, [line for entry in entries(lines) for line in _listed(entry)], linked)
    return _field({"Note": "Notes", "Example": "Examples"}.get(name, name), lines, linked)


def _arguments(name: str, lines: Lines, linked: Linked) -> Lines:
    """Return Sphinx's fields: one for each argument or exception, or one for the return value."""
    word = {"Args": "param", "Raises": "raises", "Yields": "yields", "Returns": "returns"}[name]
    if name in ("Yields", "Returns"):
        return _field(word, lines, linked)
    found = []
    for entry in entries(lines):
        match = _ENTRY.match(entry[0])
        head = (match[1] or match[2]) if match else ""
        rest = [entry[0][match.end() :] if match else entry[0], *dedent("\n".join(entry[1:])).split("\n")]
        found += _field(f"{word} {_escaped(head)}".rstrip() if head else name, rest, linked)
    return found


def entries(lines: Lines) -> Iterator[Lines]:
    """Yield the entries of a section: each begins with ``name:`` at the margin, and goes on to the next."""
    entry: Lines = []
    for line in lines:
        if entry and _ENTRY.match(line):
            yield _stripped(entry)
            entry = []
        entry = [*entry, line]
    if _stripped(entry):
        yield _stripped(entry)


def _listed(entry: Lines) -> Lines:
    """Return an entry as an item of a list, its name as a literal."""
    match = _ENTRY.match(entry[0])
    if not match:
        return [entry[0], *entry[1:]]
    return [f"- ``{match[1] or match[2]}``: {entry[0][match.end() :]}", *[f"  {line.strip()}" for line in entry[1:] if line]]


def shapes(lines: Lines) -> Lines:
    """Return the shapes of a section, each on one line; a line that does not begin with a shape belongs to the previous one."""
    found: Lines = []
    for line in filter(None, lines):
        if found and (indent_of(line) or not _SHAPE.match(line)):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


# prose


def prose(text: str, linked: Linked = lambda name: None) -> str:
    """Return plain text as reStructuredText: only double backquotes mean something."""
    parts, end = [], 0
    for span in _SPAN.finditer(text):
        parts += [_escaped(text[end : span.start()]), _code(span, text, linked)]
        end = span.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|`]|_(?!\w)|::$)", r"\\\1", text)


def _code(span: re.Match[str], text: str, linked: Linked) -> str:
    """Return a literal or a link, set apart from letters beside it."""
    code, before, after = span[1], text[: span.start()][-1:], text[span.end() :][:1]
    target = linked(code)
    shown = f":py:obj:`{code} <{target}>`" if target and "\\" not in code else f"``{code}``"
    return r"\ " * (before.isalnum()) + shown + r"\ " * (after.isalnum())
