"""Formulas of the reference: each gets a class with the number of its columns, from which the style sheet computes its size.

``columns-80`` is the class of a formula whose longest line has 76 to 80 columns. ``site.css`` makes its letters small enough for
the width of the page, and no smaller than can be read.
"""

import unicodedata
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

STEP, SHORTEST = 5, 40


def columns(text: str) -> int:
    """Return the width of the longest line in columns; a combining character has none."""
    return max(sum(not unicodedata.combining(sign) for sign in line) for line in text.split("\n"))


def size_class(text: str) -> str:
    """Return the class of a formula."""
    return f"columns-{max(SHORTEST, -(-columns(text) // STEP) * STEP)}"


class SizesOfFormulas(SphinxTransform):
    """Adds their classes to the formulas of a page."""

    default_priority = 900

    def apply(self, **options: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            if "formula" in block["classes"]:
                block["classes"].append(size_class(block.astext()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Size the formulas as pages are read."""
    app.add_transform(SizesOfFormulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
