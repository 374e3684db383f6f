"""HTML and SVG as text: escaping, well-formedness, and the ticks of an axis."""

import math
import re
from xml.etree import ElementTree

import pytest

from funcnet.charts import Axis, Curve, line_chart, thinned, ticks
from funcnet.markup import STYLE, Markup, element, folded, output, table

WORDS = "<b>&\"'µ"


def test_content_and_attributes_are_escaped_once() -> None:
    """A parser reads the original words; ``Markup`` stays HTML."""
    made = element("p", WORDS, element("i", WORDS), title=WORDS, class_="a", stroke_width=2, left_out=None)
    read = ElementTree.fromstring(made)
    assert read.text == WORDS
    assert read[0].text == WORDS
    assert read.attrib == {"title": WORDS, "class": "a", "stroke-width": "2"}
    assert Markup("<hr/>") in element("p", Markup("<hr/>"))


def test_a_table_has_a_head_rows_and_a_foot() -> None:
    """Words are aligned to the left, numbers to the right, and the padding of text tables is removed."""
    read = ElementTree.fromstring(table(("name", "n"), [("a", "  12"), (WORDS, "3")], ("all", "15"), words=1))
    rows = [[cell.text for cell in row] for row in read.iter("tr")]
    assert rows == [["name", "n"], ["a", "12"], [WORDS, "3"], ["all", "15"]]
    assert [cell.get("class") for cell in read.find("tfoot/tr")] == ["word", None]


def test_what_a_notebook_shows_has_its_style_and_needs_nothing_else() -> None:
    """Each style rule applies only inside its element, and all colors suit light and dark pages."""
    page = output(folded("more", "hidden", is_open=True))
    read = ElementTree.fromstring(page)
    assert read.get("class") == "funcnet"
    assert read.find("details").get("open") == ""
    assert all(line.startswith(".funcnet ") for line in STYLE.strip().splitlines())
    assert not re.search(r"url\(|@import|https?:|<script|#[0-9a-f]{3,6}\b", page)


@pytest.mark.parametrize(
    ("low", "high", "is_log", "want"),
    [
        (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-1.0, 7.0, False, [0.0, 2.0, 4.0, 6.0]),
        (1e-9, 1.1e-9, False, [1e-9, 1.02e-9, 1.04e-9, 1.06e-9, 1.08e-9, 1.1e-9]),
        (1e-4, 20.0, True, [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]),
        (0.6, 7.0, True, [1.0, 3.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, is_log: bool, want: list[float]) -> None:
    """Ticks are multiples of 1, 2 or 5; on a logarithmic axis powers of ten, with numbers between them if the axis is short."""
    assert ticks(Axis(low, high, 0.0, 1.0, is_log), 6 if is_log else 5) == pytest.approx(want, rel=1e-12)


def test_a_chart_is_well_formed_and_shows_every_value() -> None:
    """Neighbors are joined; gaps stay gaps; a single value is a dot; labels are escaped and have tooltips."""
    values = [0.5, 0.25, math.nan, 0.125, math.nan, 0.1]
    made = ElementTree.fromstring(
        line_chart(WORDS, range(1, 7), [Curve("train", values), Curve(WORDS, values, 1, is_dashed=True)])
    )
    assert made.get("aria-label") == WORDS
    groups = made.findall("g")
    assert [group.find("title").text for group in groups] == ["train", WORDS]
    assert [len(group.findall("polyline")) for group in groups] == [1, 1]
    assert [len(group.findall("circle")) for group in groups] == [4, 4]
    assert groups[0].find("circle/title").text == "train, 1: 0.5"
    assert groups[1].find("polyline").get("stroke-dasharray")


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_a_chart_without_values_says_so(values: list[float]) -> None:
    """The chart shows a message instead of axes."""
    assert "no finite values" in line_chart("loss", range(len(values)), [Curve("a", values)])


@pytest.mark.parametrize("value", [0.0, -3.0, 1e300, 1e-300])
@pytest.mark.parametrize("is_log", [False, True])
def test_a_constant_has_its_place(value: float, is_log: bool) -> None:
    """One value and several equal values are tried, even at the ends of the range of floats."""
    value = abs(value) or 1.0 if is_log else value
    for count in (1, 3):
        made = ElementTree.fromstring(line_chart("y", range(count), [Curve("a", [value] * count)], is_log=is_log))
        places = [float(one.get(name)) for one in made.iter("circle") for name in ("cx", "cy")]
        assert all(0 <= place <= 320 for place in places)


def test_a_long_line_keeps_its_extremes() -> None:
    """A picture of 100 000 values has at most some 600 points, and the peaks are among them."""
    run = [(float(i), float(i % 97), float(i), 0.0) for i in range(100_000)]
    found = thinned(run)
    assert len(found) <= 603
    assert found == sorted(found)
    assert {y for _, y, *_ in found} >= {0.0, 96.0}
