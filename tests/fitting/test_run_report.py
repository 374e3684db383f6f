"""Histories, trainings and trees in notebooks, and the report of a run as one file."""

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import funcnet as fn

NAME = "<i>&\"'"
OUTSIDE = re.compile(r"src=|href=|url\(|@import|https?:|<script|<link|<iframe")


def history(**more: list[Any]) -> fn.History:
    """Return a history of three epochs, with a name that must be escaped and a value that is missing."""
    columns = {"epoch": [1, 2, 3], "loss": [0.5, math.nan, 0.125], "validation_loss": [0.4, 0.3, 0.35], NAME: [1, None, 2]}
    return fn.History({**columns, "seconds": [0.5, 0.25, 0.25], **more})


def read(page: str) -> ElementTree.Element:
    """Parse HTML that is also well-formed XML."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def words(page: str) -> str:
    """Return the text of a page."""
    return " ".join("".join(read(page).itertext()).split())


SHOWN = {
    "history": history(),
    "empty history": fn.History(),
    "fit": fn.Fit({"weight": torch.zeros(2, 3)}, {"step": torch.tensor(2)}, history()),
    "description": fn.tree.describe({NAME: torch.tensor([1.0, math.nan]), "b": torch.zeros(2)}),
    "summary": fn.summary(fn.serial(fn.Linear(2, 3), fn.Tanh()), (4, 2)),
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_notebooks_show_is_well_formed_and_needs_nothing_from_outside(name: str) -> None:
    """Names are escaped, and no script, link or image is loaded."""
    page = SHOWN[name]._repr_html_()
    read(page)
    assert not OUTSIDE.search(page)
    assert NAME not in page


def test_a_history_shows_its_curves_and_its_table() -> None:
    """There is a chart for each panel of ``plot``; a long table is folded, and has its first and last epochs."""
    page = read(history()._repr_html_())
    assert [one.get("aria-label") for one in page.iter("svg")] == ["loss", NAME, "seconds per epoch"]
    assert [cell.text for cell in page.find(".//tbody/tr")] == ["1", "0.5", "0.4", "1", "0.5"]
    long = read(fn.History({"epoch": [*range(1, 101)], "loss": [1 / n for n in range(1, 101)]})._repr_html_())
    assert [row[0].text for row in long.findall(".//tbody/tr")] == [*"12345", "...", "96", "97", "98", "99", "100"]
    assert long.find(".//details").get("open") is None


def test_a_fit_and_a_description_show_their_numbers() -> None:
    """A fit shows the sizes of params and state, a description the statistics of each leaf."""
    assert "params 6 24 B" in words(SHOWN["fit"]._repr_html_()).replace("params6", "params 6 ").replace("624", "6 24")
    rows = [[cell.text for cell in row] for row in read(SHOWN["description"]._repr_html_()).findall(".//tbody/tr")]
    assert [row[0] for row in rows] == [NAME, "b"]
    assert rows[0][-2:] == ["1", "0"]


def test_a_report_is_one_file_with_all_that_was_given(tmp_path: Path) -> None:
    """The file contains curves, best epochs, seconds, versions, the matrix with its classes, and the net's summary."""
    net, matrix = fn.serial(fn.Linear(2, 3), fn.Tanh()), torch.tensor([[8, 2], [1, 9]])
    run = fn.Fit(net.init(0), {}, history())
    path = fn.report(run, tmp_path / "run.html", net=net, x=(4, 2), confusion=matrix, classes=["cat", NAME], title=f"Run {NAME}")
    page = path.read_text(encoding="utf-8")
    text = words(page)
    for expected in (f"Run {NAME}", f"funcnet {fn.__version__}", f"torch {torch.__version__}", "0.125best loss, epoch 3"):
        assert expected in text
    for expected in ("0.3best validation loss, epoch 2", "9numbers in params", "1 sof training", "cat", "Linear(in_features=2"):
        assert expected in text
    assert len(read(page).findall(".//svg")) == 3
    assert [[cell.text for cell in row] for row in read(page).findall(".//table[@class='matrix']/tbody/tr")] == [
        ["cat", "8", "2"],
        [NAME, "1", "9"],
    ]
    assert not OUTSIDE.search(page)
    assert [*tmp_path.iterdir()] == [path]


def test_a_matrix_in_the_history_is_shown_by_itself(tmp_path: Path) -> None:
    """The last matrix of its column is shown, or of another column by name; without a matrix none is shown."""
    matrices = [torch.eye(2) * n for n in (1, 2, 3)]
    run = history(confusion_matrix=matrices, validation_confusion_matrix=[m + 4 for m in matrices])
    assert "Validation confusion matrix" in words(fn.report(run, tmp_path / "a.html").read_text())
    assert [
        cell.text
        for cell in read(fn.report(run, tmp_path / "b.html", confusion="confusion_matrix").read_text()).find(
            ".//table[@class='matrix']/tbody/tr"
        )[1:]
    ] == ["3", "0"]
    assert 'class="matrix"' not in fn.report(history(), tmp_path / "c.html").read_text()


def test_a_net_without_x_is_an_outline(tmp_path: Path) -> None:
    """The outline has the params of its layers."""
    page = fn.report({"loss": [0.5]}, tmp_path / "run.html", net=fn.serial(fn.Linear(2, 3))).read_text()
    assert "9 params" in words(page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": [0.5]}, r"report: run must be the result of fit, or its history, got a list"),
        ({"run": {}}, r"report: the history must have an epoch to show, got none"),
        ({"path": 3}, r"report: path must be a str or os.PathLike"),
        ({"path": "no folder/run.html"}, r"report: the folder of path must exist"),
        ({"net": "mlp"}, r"report: net must be a layer"),
        ({"x": (2, 3)}, r"report: net must be given with x, got x only"),
        ({"confusion": torch.zeros(2, 3)}, r"report: confusion must be a square matrix of finite numbers"),
        ({"confusion": "loss"}, r"report: confusion must be a square matrix .* got 'loss'"),
        ({"confusion": torch.eye(2), "classes": ["a"]}, r"report: classes must be a list of 2 names"),
        ({"classes": ["a"]}, r"report: classes must be given with a confusion matrix, got none"),
        ({"title": None}, r"report: title must be a string"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_and_nothing_is_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message names the caller, the rule, and what it got."""
    given = {"run": history(), "path": tmp_path / "run.html", **change}
    with pytest.raises(ValueError, match=message):
        fn.report(given.pop("run"), given.pop("path"), **given)
    assert [*tmp_path.iterdir()] == []
