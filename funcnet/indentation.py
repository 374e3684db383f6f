"""Indentation: format a long call, such as the ``repr`` of a value, over several lines.

The result is the same expression: line breaks are added only inside brackets, before and after their items.
"""

import re
from itertools import pairwise

WIDTH = 88
"""The longest line that is not broken; a longer one without brackets is not broken either."""

_STEP = 4
_TOKENS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[()\[\]{},]""")

Span = tuple[int, int]


def indented(text: str, indent: int = 0) -> str:
    """Break a long expression into lines, with one item of the outermost brackets on each, recursively.

    >>> print(indented(f"f({'x' * 60}, g(1, 2), {'y' * 30})"))
    f(
        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,
        g(1, 2),
        yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
    )
    """
    items = _longest_group(_bracketed(text)) if indent + len(text) > WIDTH else []
    if not items:
        return text
    pad = "\n" + " " * (indent + _STEP)
    lines = [indented(text[start:end].strip(), indent + _STEP) for start, end in items]
    inner = ("," + pad).join(lines) if lines[-1] else ("," + pad).join(lines[:-1]) + ","  # (x,) keeps its comma
    return f"{text[: items[0][0]]}{pad}{inner}\n{' ' * indent}{text[items[-1][1] :]}"


def _bracketed(text: str) -> list[list[Span]]:
    """Find the outermost brackets that are not empty, and the start and end of each of their items."""
    groups: list[list[Span]] = []
    cuts: list[int] = []
    depth = 0
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in "([{":
            cuts = cuts if depth else [token.end()]
            depth += 1
        elif mark in ")]}":
            depth -= 1
            groups += [_spans([*cuts, token.start() + 1])] if depth == 0 else []
        elif mark == "," and depth == 1:
            cuts.append(token.end())
    return [group for group in groups if text[group[0][0] : group[-1][1]].strip()] if depth == 0 else []


def _spans(cuts: list[int]) -> list[Span]:
    """Return the spans between cuts. Each cut is after a bracket or comma, or one beyond the last bracket."""
    return [(start, end - 1) for start, end in pairwise(cuts)]


def _longest_group(groups: list[list[Span]]) -> list[Span]:
    return max(groups, key=lambda group: group[-1][1] - group[0][0], default=[])
