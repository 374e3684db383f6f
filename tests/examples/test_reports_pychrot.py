"""Report 000, run small: its tables, its files, and their contents."""

import json
import re

import pytest
import torch
from pages import refuse, stopped_after

import funcnet as fn
from examples.reports import paper, pychrot
from examples.reports.experiment import TRAININGS, data, first_params, orders
from examples.reports.paper import parser


def run(folder):
    """Run one epoch of everything, and return the page."""
    return pychrot.main(["--quick", "--epochs", "1", "--out", str(folder)]).read_text()


def table(page, title):
    """Return the rows of a table, their cells by header."""
    text = page.partition(f"**{title}")[2].partition("\n\n")[2].partition("\n\n")[0]
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def near(cell, **tolerance):
    """Return the number in a cell for comparison; two non-finite numbers are equal."""
    return pytest.approx(float(cell), nan_ok=True, **tolerance)


def defaults():
    """Return all experiments with the report's own epochs, by name."""
    options = parser("", "", "", pychrot.RUNS).parse_args([])
    return {one.name: one for one in pychrot.experiments(options)}


def test_the_page_sets_funcnet_beside_torch_nn_and_a_rerun_trains_nothing(tmp_path, monkeypatch):
    """Both cells agree, the float64 gap is rounding, the figures are PNGs, and the second page equals the first."""
    page = run(tmp_path)
    for title in ("Table I:", "Table II:", "Longer training", "Other rates", "Logistic regression"):
        rows = [row for row in table(page, title) if row["measure"] != "seconds"]
        assert rows
        for row in rows:
            assert float(row["funcnet"]) == near(row["torch.nn"], abs=0.01, rel=0.01)
    assert float(re.search(r"in float64: (\S+)\.\n", page).group(1)) < 1e-9
    for number in (2, 4, 5):
        assert (tmp_path / "pychrot" / f"figure_{number}.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(paper, "perform", refuse)
    assert run(tmp_path) == page


def fixed(experiment, framework, *rest):
    """Replace a run: return numbers that identify it."""
    part = 0.5 if "mean over elements" in experiment.name else 1.0
    names = ("loss", *[f"{p} {m}" for p in ("train", "test") for m in ("accuracy", "precision", "recall", "f1")])
    value, seconds = {"funcnet": (0.9, 2.0), "torch.nn": (0.8, 5.0)}[framework]
    final = dict.fromkeys(names, part * value)
    return {"seconds": seconds, "final": final, "curves": {n: [v] for n, v in final.items()}}


@pytest.fixture
def stubbed(monkeypatch):
    """Replace training with ``fixed``."""
    monkeypatch.setattr(paper, "perform", fixed)
    monkeypatch.setattr(paper, "first_epoch_gap", lambda *arguments: 0.0)


def test_the_page_has_the_figures_of_the_report_beside_the_measured_ones(tmp_path, stubbed):
    """Table II has the report's six figures for each of six nets, funcnet's, torch.nn's, and the ratio of seconds."""
    rows = table(run(tmp_path), "Table II:")
    names, measures = list(pychrot.PRINTED), [*pychrot.MEASURES, "seconds"]
    assert [(row["model"], row["measure"]) for row in rows] == [(name, measure) for name in names for measure in measures]
    assert [float(row["report"]) for row in rows] == [figure for name in names for figure in pychrot.PRINTED[name]]
    assert {(row["funcnet"], row["torch.nn"], row["torch.nn / funcnet"]) for row in rows if row["measure"] == "seconds"} == {
        ("2.00", "5.00", "2.50")
    }
    assert {(row["funcnet"], row["torch.nn"]) for row in rows if row["measure"] != "seconds"} == {("0.900", "0.800")}


def test_table_three_has_the_mean_over_elements_with_its_loss_doubled(tmp_path, stubbed):
    """Half of the loss is doubled, its F1 is unchanged, and the report's ratio is shown with both of torch.nn's."""
    rows = {(row["model"], row["measure"]): row for row in table(run(tmp_path), "Table III:")}
    column = "torch.nn, mean over elements"
    assert (rows["Tanh", "loss"][column], rows["Tanh", "F1"][column], rows["Tanh", "F1"]["torch.nn"]) == (
        "0.800",
        "0.400",
        "0.800",
    )
    ratios = rows["Tanh", "seconds / those of PyChrot, funcnet"]
    assert (ratios["PyTorch (report)"], ratios[column], ratios["torch.nn"]) == ("0.95", "2.50", "2.50")


def test_the_page_says_which_nets_take_more_than_half_the_seconds(tmp_path, monkeypatch, stubbed):
    """A net with a ratio of 1.25 is named; if all have 2.5, none is."""
    assert "It reaches this goal for every net of Table II." in run(tmp_path / "fast")
    slow = {"seconds": 4.0}
    monkeypatch.setattr(paper, "perform", lambda e, f, *rest: fixed(e, f) | (slow if (e.name, f) == ("Tanh", "funcnet") else {}))
    assert "It misses this goal for Tanh (1.25)." in run(tmp_path / "slow")


def test_ctrl_c_leaves_the_tables_of_what_has_finished(tmp_path, monkeypatch):
    """After a stop in the fourth run the first net and half of the second exist, and the others have dashes."""
    monkeypatch.setattr(paper, "perform", stopped_after(3))
    page = run(tmp_path)
    rows = {(row["model"], row["measure"]): row for row in table(page, "Table II:")}
    assert "—" not in rows["Sigmoid + BN", "seconds"].values()
    assert (rows["Sigmoid", "F1"]["funcnet"] == "—", rows["Sigmoid", "F1"]["torch.nn"]) == (False, "—")
    assert (rows["Tanh", "F1"]["funcnet"], rows["Tanh", "seconds"]["torch.nn / funcnet"]) == ("—", "—")
    assert (tmp_path / "pychrot" / "figure_5.png").exists()


def test_only_a_missing_run_is_repeated(tmp_path, monkeypatch, stubbed):
    """If one file of a run is deleted, a second run trains only that run."""
    run(tmp_path)
    files = [file for file in sorted((tmp_path / "pychrot" / "runs").glob("*.json")) if "seconds" in file.read_text()]
    assert len(files) == 2 * len(defaults())
    lost = json.loads(files[0].read_text())
    files[0].unlink()
    made = []
    monkeypatch.setattr(paper, "perform", lambda *arguments: made.append(arguments) or fixed(*arguments))
    run(tmp_path)
    assert (len(made), json.loads(files[0].read_text())) == (1, lost)


def test_the_experiments_are_those_of_the_report():
    """Six nets train for 200 epochs: five of (Linear, activation[, BatchNorm]) and Linear(20, 2), batches of 10."""
    found = defaults()
    for name in pychrot.PRINTED:
        one, kinds = found[name], [type(pychrot.ACTIVATIONS[name.split(" ")[0]]), *[fn.BatchNorm1d] * ("BN" in name)]
        assert [type(layer) for layer in one.net] == [fn.Linear, *kinds] * 5 + [fn.Linear]
        assert [layer.out_features for layer in one.net if isinstance(layer, fn.Linear)] == [20] * 5 + [2]
        assert (one.epochs, one.batch_size, one.target, one.loss) == (200, 10, "one-hot", fn.MSE(reduction="batch"))
    assert (found["ReLU"].opt.lr, found["ReLU + BN"].opt.lr, found[pychrot.LONG_RUN].epochs) == (0.001, 0.001, 500)


def test_the_rate_that_the_report_prints_is_tried():
    """Tanh and Sigmoid, with and without BatchNorm, are trained with rate 1 too."""
    rates = {name: one.opt.lr for name, one in defaults().items() if name.endswith(", rate 1.0")}
    assert rates == {f"{name}, rate 1.0": 1.0 for name in pychrot.PRINTED if "ReLU" not in name}


def test_both_judge_by_the_running_statistics():
    """After ten float64 steps predictions with BatchNorm agree, and a point's does not depend on other points."""
    one = defaults()["Tanh + BN"]
    train, test = data(one, 0, torch.float64)
    said = []
    for training in TRAININGS.values():
        fit, predict, _ = training(one, first_params(one, 0, dtype=torch.float64))
        fit([(train.x[rows], train.targets[rows]) for rows in next(orders(one, 0, 1, "cpu"))[:10]])
        said.append(predict(test.x))
        torch.testing.assert_close(predict(test.x[:1]), said[-1][:1])
    torch.testing.assert_close(*said, rtol=0, atol=1e-9)


@pytest.mark.compiled
def test_the_quadratic_features_are_a_layer():
    """Quadratic keeps all laws."""
    fn.testing.check_laws(pychrot.Quadratic(), fn.random.normal(0, (5, 2)))


def test_a_line_in_the_quadratic_features_is_the_border_of_the_disk():
    """With the right five weights and bias, every test point is on the right side."""
    one = defaults()["logistic regression, degree 2"]
    _, test = data(one, 0)
    x = pychrot.quadratic(test.x)
    inside = x @ torch.tensor([1.0, 1.0, -1.0, 0.0, -1.0]) > 0.5 - 1 / (2 * torch.pi)
    assert torch.equal(inside.long(), test.labels)
