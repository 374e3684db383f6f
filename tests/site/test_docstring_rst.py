"""Docstrings on the site: formulas keep their lines, sections become fields, prose is plain text, and no word is lost."""

import re

import pytest

from docs._ext import public_names
from docs._ext.docstring_rst import converted, is_program, prose


def lines_of(text: str) -> list[str]:
    """Convert a docstring, and return its lines without empty ones."""
    return [line for line in converted(text.split("\n")) if line.strip()]


def test_a_formula_keeps_its_lines_and_columns():
    """A formula is indented after the summary, or has columns at the margin, as in docstrings of modules."""
    block = ["   y  = x wᵀ + b", "   gb = Σ gy        over rows"]
    formula = [".. code-block:: text", "   :class: formula", *block]
    assert lines_of("Map.\n\n    y  = x wᵀ + b\n    gb = Σ gy        over rows\n\nMore.") == ["Map.", *formula, "More."]
    aligned = "y  = x wᵀ + b        x (..., in)\ngb = Σ gy, over rows  b (out,)"
    assert lines_of(aligned)[:2] == formula[:2]
    assert lines_of(aligned)[2:] == [f"   {line}" for line in aligned.split("\n")]


def test_a_program_is_highlighted():
    """An indented block with a call of a dotted name is a program; a formula that Python could parse is not."""
    assert lines_of("Map.\n\n    y = net.apply(params, x)")[1] == ".. code-block:: python"
    assert not is_program(["y = a * x + b"])
    assert not is_program(["y = x wᵀ"])


def test_an_example_stays_as_it_is():
    """Its output stays too, with all characters."""
    example = ">>> f(*x)\ntensor([1., 2.])"
    assert lines_of(f"Map.\n\n{example}") == ["Map.", *example.split("\n")]


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (
            "Args:\n    p: Share of\n        zeros.\n    *layers: Any.",
            [":param p:", "   Share of zeros.", r":param \*layers:", "   Any."],
        ),
        ("Raises:\n    ValueError: If x | y.", [":raises ValueError:", r"   If x \| y."]),
        ("Returns:\n    The params: a dict.", [":returns:", "   The params: a dict."]),
        ("Shape:\n    x (N, ...) → y (N,)", [":Shape:", "   x (N, ...) → y (N,)"]),
        ("Shape:\n    x (N, in), or\n        (in,)\n    y (N,)", [":Shape:", "   - x (N, in), or (in,)", "   - y (N,)"]),
        ("Params:\n    weight: (out, in),\n        normal.", [":Params:", "   - ``weight``: (out, in), normal."]),
        ("Params:\n    The layer's.", [":Params:", "   The layer's."]),
        ("Cache:\n    ``x``.", [":Cache:", "   ``x``."]),
        ("References:\n    He et al. 2015.", [":References:", "   He et al. 2015."]),
    ],
)
def test_a_section_becomes_fields(section, fields):
    """Entries continue over indented lines, which are joined."""
    assert lines_of(f"Map.\n\n{section}")[1:] == fields


def test_an_entry_may_have_a_formula_and_a_list():
    """Both are within the field."""
    text = "Args:\n    p: One of:\n\n        - ``a``: this\n          one\n        - ``b``"
    assert lines_of(text) == [":param p:", "   One of:", "   - ``a``: this one", "   - ``b``"]


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("|a| * b_ `c`", r"\|a\| \* b\_ \`c\`"),
        ("``a*|b|``s, x_y", r"``a*|b|``\ s, x_y"),
        ("a\\b::", r"a\\b\::"),
    ],
)
def test_prose_means_itself(text, markup):
    """Characters that reStructuredText interprets are escaped outside of double backquotes."""
    assert prose(text) == markup


def test_a_literal_that_names_something_public_is_a_link():
    """The name must be known."""
    known = {"MSE": "funcnet.MSE"}
    assert prose("as ``MSE`` and ``mse``", known.get) == "as :py:obj:`MSE <funcnet.MSE>` and ``mse``"


@pytest.mark.parametrize("name", public_names.documented())
def test_no_word_is_lost(name):
    """Every word of a docstring is on its page in order; only the names of sections change."""
    said = public_names.docstring(name)
    shown = "\n".join(converted(said.split("\n"))).replace("\\", "")
    left = iter(re.findall(r"\w+", re.sub(r"^\s*(\.\. code-block:: \w+|:class: formula)$", "", shown, flags=re.MULTILINE)))
    headers = re.sub(r"^(Args|Returns|Raises|Yields|Notes?|Examples?):$", "", said.replace("\\", ""), flags=re.MULTILINE)
    missing = [word for word in re.findall(r"\w+", headers) if word not in left]
    assert missing == []
