"""Reports of unusual runs: values near the ends of floats, epochs out of order, names that no file can hold, odd matrices."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import funcnet as fn
from funcnet.charts import Curve, line_chart

COLUMNS: dict[str, dict[str, list[Any]]] = {
    "the whole range of floats": {"loss": [1.7e308, -1.7e308, 1e307]},
    "the smallest floats": {"loss": [5e-324, 5e-324, 1e-320]},
    "from the smallest to the largest": {"loss": [5e-324, 1.0, 1e308]},
    "the largest on a logarithmic axis": {"loss": [1e-300, 1e300, 1.7e308]},
    "all too large for an axis": {"loss": [1.6e308, 1.7e308, 1.6e308]},
    "neighbors": {"loss": [1.0, 1.0 + 2**-52, 1.0]},
    "large integers": {"loss": [10**300, 1, 2]},
    "falling epochs": {"epoch": [3, 2, 1], "loss": [1.0, 2.0, 3.0]},
    "epochs that return": {"epoch": [1, 2, 1], "loss": [1.0, 2.0, 3.0]},
    "neighboring epochs beyond the integers of floats": {"epoch": [2**63, 2**63 + 1], "loss": [1.0, 2.0]},
    "one large epoch": {"epoch": [10**18], "loss": [1.0]},
    "no epoch at the end": {"epoch": [1, None], "loss": [1.0, 2.0]},
    "seconds that are missing": {"loss": [1.0, 2.0, 3.0], "seconds": [None, math.nan, math.inf]},
    "seconds that are tensors": {"loss": [1.0], "seconds": [torch.ones(3, 3)]},
    "a column without values": {"loss": [1.0], "confusion": []},
    "names that no file can hold": {"\ud800": [1.0, 2.0], "\0\x01\x0c\uffff": [1.0, 2.0]},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_report_of_unusual_columns_is_a_well_formed_file(name: str, tmp_path: Path) -> None:
    """The file is written, is well-formed, and has only finite coordinates."""
    page = fn.report(COLUMNS[name], tmp_path / "run.html").read_text("utf-8")
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    places = [one.get(key) for one in root.iter() for key in ("cx", "cy", "x", "y", "y1") if one.get(key) is not None]
    assert all(-1000 < float(place or "nan") < 1000 for place in places)
    assert [one.name for one in tmp_path.iterdir()] == ["run.html"]


def test_seconds_without_a_number_are_no_fact(tmp_path: Path) -> None:
    """Missing and infinite seconds are not summed."""
    page = fn.report({"loss": [1.0, 2.0], "seconds": [None, math.nan]}, tmp_path / "none.html").read_text("utf-8")
    assert "of training" not in page
    page = fn.report({"loss": [1.0, 2.0], "seconds": [3.0, math.inf]}, tmp_path / "one.html").read_text("utf-8")
    assert "<b>3 s</b>" in page


MATRICES = {
    "NaN": torch.tensor([[1.0, math.nan], [0.0, 1.0]]),
    "infinite": torch.tensor([[1.0, math.inf], [0.0, 1.0]]),
    "negative": torch.tensor([[1, -1], [0, 1]]),
    "on the meta device": torch.ones(2, 2, device="meta"),
    "sparse": torch.eye(2).to_sparse(),
    "complex": torch.ones(2, 2, dtype=torch.complex64),
    "empty": torch.ones(0, 0),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_confusion_matrix_that_holds_no_counts_is_an_error(name: str, tmp_path: Path) -> None:
    """The error names the rule, and no file is left; in a history such a tensor is just not shown."""
    matrix = MATRICES[name]
    with pytest.raises(ValueError, match=r"report: confusion must be a square matrix of finite numbers of at least 0"):
        fn.report({"loss": [1.0]}, tmp_path / "run.html", confusion=matrix)
    assert not [*tmp_path.iterdir()]
    page = fn.report({"loss": [1.0], "gram": [matrix]}, tmp_path / "run.html").read_text("utf-8")
    assert "Gram" not in page


def test_a_column_without_values_is_no_confusion_matrix(tmp_path: Path) -> None:
    """The error is about ``confusion``, not about an index."""
    with pytest.raises(ValueError, match=r"report: confusion must be a square matrix .* got 'matrix'"):
        fn.report({"loss": [1.0], "matrix": []}, tmp_path / "run.html", confusion="matrix")


def test_a_history_refuses_integers_beyond_floats() -> None:
    """Such integers could be neither printed, compared with NaN nor drawn."""
    with pytest.raises(ValueError, match=r"History: the values of 'loss' must be within the range of floats, got a larger one"):
        fn.History({"loss": [10**400]})
    with pytest.raises(ValueError, match=r"History\.append: the values of 'loss' must be within the range of floats"):
        fn.History({"loss": [1.0]}).append({"loss": -(10**400)})


def test_values_beyond_an_axis_are_at_its_end() -> None:
    """The tooltip still says the value."""
    chart = ElementTree.fromstring(line_chart("loss", [1, 2], [Curve("training", [0.0, 1.5e308])]))
    last = [*chart.iter("circle")][-1]
    assert last[0].text == "training, 2: 1.5e+308"
    assert 0 < float(last.get("cy") or "nan") < 190
