"""Report 001, run small: its tables, its files, and its statements about them."""

import re
from types import SimpleNamespace

import pytest
from pages import cells, refuse, stopped_after

from examples.reports import paper, ten_folds
from examples.reports.experiment import perform


def run(folder):
    """Run two epochs of one repetition, and return the page."""
    return ten_folds.main(["--quick", "--out", str(folder)]).read_text()


def test_the_page_sets_funcnet_beside_torch_nn_and_a_rerun_trains_nothing(tmp_path, monkeypatch):
    """Both cells agree, the float64 gap is rounding, the figures are PNGs, and the second page equals the first."""
    page = run(tmp_path)
    for model in ("Custom framework", "PyTorch"):
        for part in ("train", "test"):
            rows = cells(page, f"{model}, {part}")
            assert len(rows) == 2
            assert [float(row[2]) for row in rows] == pytest.approx([float(row[3]) for row in rows], abs=0.2)
            assert {row[1] for row in rows} == {"{} ± {}".format(*ten_folds.PRINTED[model, part])}
    assert float(re.search(r"in float64: (\S+)\.\n", page).group(1)) < 1e-9
    assert "8 end with a loss that is not finite" in page
    for figure in ("figure_1.png", "figure_2.png"):
        assert (tmp_path / "ten_folds" / figure).read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(paper, "perform", refuse)
    assert run(tmp_path) == page


def test_ctrl_c_leaves_the_tables_of_what_has_finished(tmp_path, monkeypatch):
    """After a stop in the third run the first two are in the tables, and the others have dashes."""
    monkeypatch.setattr(paper, "perform", stopped_after(2))
    page = run(tmp_path)
    assert "—" not in cells(page, "Custom framework, train")[0]
    assert cells(page, "PyTorch, train")[0][2:4] == ["—", "—"]


def test_effects_are_those_of_the_two_by_two():
    """Uniform weights add 10 with either reduction, the mean subtracts 2: the effects 10, -2 and 0 are due to the weights."""
    errors = {
        ("batch", "Custom framework"): 6.0,
        ("batch", "PyTorch"): 16.0,
        ("mean", "Custom framework"): 4.0,
        ("mean", "PyTorch"): 14.0,
    }
    results = {
        (ten_folds.name("net", *cell), "funcnet", 0): {"final": {"test accuracy": 1 - error / 100}}
        for cell, error in errors.items()
    }
    found = ten_folds.effects(SimpleNamespace(results=results), "net", 0)
    assert found == pytest.approx((10.0, -2.0, 0.0))
    assert "the initial weights make up 96 %, the reduction 4 %" in ten_folds.verdict("net", [found])
    assert ten_folds.verdict("net", [found]).endswith("the initial weights explain the difference.")
    assert ten_folds.verdict("net", [(1.0, 5.0, 0.0)]).endswith("the reduction explains the difference.")


def test_ten_repetitions_have_the_test_error_of_the_report():
    """Four linear layers in total, Xavier weights and the mean give a test error of at most 4.9 %; the report has 4.88."""
    wanted = ten_folds.name(ten_folds.FOUR_IN_ALL, "mean", "Custom framework")
    (experiment,) = [e for e in ten_folds.experiments(SimpleNamespace(epochs=None)) if e.name == wanted]
    finals = [perform(experiment, "funcnet", seed)["final"]["test accuracy"] for seed in range(ten_folds.RUNS)]
    assert 100 * (1 - sum(finals) / len(finals)) <= 4.9


def test_no_runs_is_an_error_of_usage():
    """--runs 0 ends with the rule, and --help names the options."""
    with pytest.raises(SystemExit, match="--runs must be at least 1, got 0"):
        ten_folds.main(["--runs", "0"])
