"""The benchmark of kernels: contenders of a row compute the same. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells

from examples.benchmarks.kernels import rows
from examples.benchmarks.kernels.__main__ import FAMILIES, main, rows_of

ALL = [(family, row) for family in FAMILIES for row in rows_of(family)]
RESULTS = Path(rows.__file__).parents[1] / "results" / "kernels"


def test_names_of_rows_are_unique_in_a_family():
    """The table is read by row and column."""
    for family in FAMILIES:
        names = [row.name for row in rows_of(family)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("family", "name"), [(family, row.name) for family, row in ALL])
def test_the_pages_in_the_repository_have_each_row(family: str, name: str):
    """The pages were made with the current rows."""
    for page in RESULTS.glob("*.md"):
        assert cells(page.read_text(), name), f"{page.name} lacks {name} of {family}"


def test_a_table_has_a_column_for_each_contender():
    """A contender of a single row leaves the cells of other rows empty; the fraction compares the first two."""
    first = rows.Row("first", lambda: {"funcnet": lambda: None, "torch.nn": lambda: None})
    second = rows.Row("second", lambda: {"funcnet": lambda: None, "by hand": lambda: None})
    head, line, *body = rows.table([first, second], rounds=1, turn=1e-4)
    assert head == "| µs a call | funcnet | torch.nn | by hand | funcnet ÷ torch.nn |"
    assert line == "|---|--:|--:|--:|--:|"
    text = "\n".join(body)
    assert [one == "" for one in cells(text, "first")[0]] == [False, False, False, True, False]
    assert [one == "" for one in cells(text, "second")[0]] == [False, False, True, False, True]


def test_contenders_run_as_in_a_step():
    """torch.nn's run with autograd, the others in inference mode, once for each call of a turn."""
    seen = {"torch.nn": [], "funcnet": []}
    ways = {name: lambda calls=calls: calls.append(torch.is_inference_mode_enabled()) for name, calls in seen.items()}
    assert all(0 <= time < 1e6 for time in rows.quickest(ways, 2, 1e-4).values())
    assert set(seen["torch.nn"]) == {False}
    assert set(seen["funcnet"]) == {True}


def test_autograd_gives_the_requested_gradients():
    """Inputs that require gradients get them, repeatedly."""
    x, w = rows.noise(3, 2), rows.leaf(rows.noise(2, seed=1))
    forward, backward = rows.through_autograd(lambda x, w: x * w, x, w)
    assert torch.equal(forward(), x * w)
    for _ in range(2):
        (gw,) = backward()
        torch.testing.assert_close(gw, x.sum(0))


def test_the_page_is_named_after_the_maker(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The page is written as printed, and names the command, the processor and the family."""
    monkeypatch.setattr("examples.benchmarks.kernels.__main__.rows_of", lambda family: [rows_of(family)[0]])
    main(["--family", "pool", "--rounds", "1", "--turn", "0.0001", "--out", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    page = path.read_text()
    assert path.stem in ("amd", "intel", "arm", "other")
    assert page.strip() == capsys.readouterr().out.strip()
    assert page.startswith("# Kernels on ")
    assert "`python -m examples.benchmarks.kernels --family pool --rounds 1" in page
    assert "## Pooling" in page
    assert cells(page, "max, prediction, 64×16×28×28")
