"""Report 004, run small: its tables, its files, and its statements about them; and twenty nets at once at full size."""

import math
import re
import statistics

import pytest
from pages import cells, is_quotient, refuse, stopped_after

import funcnet as fn
from examples.reports import paper, twenty_runs
from examples.reports.experiment import data, measures, orders
from examples.reports.paper import parser


def run(folder):
    """Run one epoch of two repetitions, and return the page."""
    return twenty_runs.main(["--epochs", "1", "--runs", "2", "--out", str(folder)]).read_text()


def numbers(cell):
    """Return the mean and the deviation from a cell."""
    return [float(word) for word in cell.split(" ± ")]


def test_the_page_sets_funcnet_beside_torch_nn_and_a_rerun_trains_nothing(tmp_path, monkeypatch):
    """Both cells agree, the float64 gap is rounding, the figure is a PNG, and the second page equals the first."""
    page = run(tmp_path)
    for (loss, who, momentum), printed in twenty_runs.PRINTED.items():
        first = who + ", momentum" * bool(momentum)
        losses, accuracies = cells(page, first)[0:2] if loss == "CrossEntropy" else cells(page, first)[3:5]
        assert [losses[1], losses[4], accuracies[1], accuracies[4]] == ["{} ± {}".format(*pair) for pair in printed]
        for row, allowed in ((losses, 2e-3), (accuracies, 0.2)):
            assert numbers(row[2]) == pytest.approx(numbers(row[3]), abs=allowed)
            assert numbers(row[5]) == pytest.approx(numbers(row[6]), abs=allowed)
    assert float(re.search(r"after the first epoch, in float64: (\S+)\.\n", page).group(1)) < 1e-9
    assert (tmp_path / "twenty_runs" / "figure_2.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(paper, "perform", refuse)
    monkeypatch.setattr(twenty_runs, "timing", refuse)
    assert run(tmp_path) == page


def test_the_page_says_what_twenty_at_once_take_and_how_they_agree(tmp_path):
    """Times are in runs of either framework, and all weights are close to the weights of separate nets."""
    page = run(tmp_path)
    kinds = ["three alone, funcnet", "three alone, torch.nn", "20 at once", "20 nets' kernels"]
    for loss in twenty_runs.LOSSES:
        rows = [row for row in cells(page, loss) if len(row) == 6]
        assert [row[1] for row in rows] == kinds
        assert [rows[0][3], rows[1][4]] == ["3.00", "3.00"]
        assert is_quotient(rows[2][4], rows[2][2], rows[1][2], factor=3)
    single, double = re.search(r"by more than (\S+) in float32 and (\S+) in float64\.", page).groups()
    assert 0 < float(single) < 1e-6
    assert 0 < float(double) < 1e-12


def test_ctrl_c_leaves_the_tables_of_what_has_finished(tmp_path, monkeypatch):
    """After a stop in the third run the first seed's row exists, and all others have dashes."""
    monkeypatch.setattr(paper, "perform", stopped_after(2))
    page = run(tmp_path)
    assert "—" not in cells(page, "ours")[0]
    assert cells(page, "torch.nn")[0][2:4] == ["—", "—"]
    assert (tmp_path / "twenty_runs" / "figure_2.png").exists()


def test_the_training_loss_is_the_sum_over_the_batches_of_the_last_epoch(tmp_path):
    """For ten batches of a hundred points it is ten times the mean of the last epoch's losses."""
    options = parser("", "", "", 1).parse_args(["--epochs", "2", "--out", str(tmp_path)])
    page = paper.start("twenty_runs", options)
    one = twenty_runs.experiment("MSE", epochs=2)
    page.run([one])
    (curve,) = page.curve(one.name, "funcnet", "loss")
    assert twenty_runs.final(page, one.name, "funcnet", "train loss") == [10 * curve[-1]]


def test_the_distance_compares_losses_and_errors():
    """A loss or error twice as large counts ln 2; a non-finite or missing one is infinitely far."""
    printed = [0.2, 0.02, 98.0, 97.0]
    assert twenty_runs.distance([[0.1, 0.3], [0.02], [98.0], [97.0]], printed) == pytest.approx(0)
    assert twenty_runs.distance([[0.4], [0.02], [96.0], [97.0]], printed) == pytest.approx(math.log(2) / 2)
    assert twenty_runs.distance([[math.nan], [0.02], [98.0], [97.0]], printed) == math.inf
    assert twenty_runs.distance([[], [0.02], [98.0], [97.0]], printed) == math.inf


def test_members_are_initialized_like_separate_nets():
    """Training at once and separately starts from the same keys."""
    of = twenty_runs.experiment("MSE")
    params = fn.ensemble(of.net, 20).init(3)
    assert fn.tree.equal(fn.tree.map(lambda leaf: leaf[4], params), of.net.init(fn.fold_in(3, 4)))


def test_twenty_nets_at_once_reach_the_accuracy_of_the_report():
    """With MSE, momentum and 200 epochs the mean test accuracy is at least the 97.6 % of the report's tables."""
    of = twenty_runs.experiment("MSE", momentum=twenty_runs.MOMENTUM)
    train, test = data(of, 0)
    epoch, current = twenty_runs.together(of, fn.ensemble(of.net, 20).init(1))
    for order in orders(of, 0, of.epochs, "cpu"):
        epoch([(train.x[rows], train.targets[rows]) for rows in order])
    outputs = fn.ensemble(of.net, 20)(current(), test.x)
    assert statistics.mean(measures(of, y, test.labels)["accuracy"] for y in outputs) >= 0.976
