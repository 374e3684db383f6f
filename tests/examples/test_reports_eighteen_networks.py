"""Report 003, run small: its tables, its files, and their contents."""

import re

import pytest
import torch
from pages import cells, is_quotient, refuse, stopped_after

import funcnet as fn
from examples.reports import eighteen_networks, paper
from examples.reports.experiment import funcnet_training, perform
from examples.reports.paper import parser


def run(folder):
    """Run one epoch of everything, and return the page."""
    return eighteen_networks.main(["--quick", "--epochs", "1", "--out", str(folder)]).read_text()


def test_the_page_sets_funcnet_beside_torch_nn_and_a_rerun_trains_nothing(tmp_path, monkeypatch):
    """All eighteen rows agree, the float64 gap is rounding, the figures are PNGs, and the second page equals the first."""
    page = run(tmp_path)
    for i, row in enumerate(eighteen_networks.ROWS):
        rows = cells(page, ", ".join(row))
        assert len(rows) == 3
        for activation, line in zip(eighteen_networks.ACTIVATIONS, rows, strict=True):
            assert (float(line[1]), float(line[4])) == eighteen_networks.PRINTED[activation][i]
            assert [float(line[2]), float(line[5])] == pytest.approx([float(line[3]), float(line[6])], abs=0.2)
            assert is_quotient(line[9], line[8], line[7])
    assert float(re.search(r"in float64: (\S+)\.\n", page).group(1)) < 1e-9
    for number in (1, 2, 3, 4):
        assert (tmp_path / "eighteen_networks" / f"figure_{number}.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(paper, "perform", refuse)
    assert run(tmp_path) == page


def test_ctrl_c_leaves_the_tables_of_what_has_finished(tmp_path, monkeypatch):
    """After a stop in the third run the first row exists, the others have dashes, and missing maps stay empty."""
    monkeypatch.setattr(paper, "perform", stopped_after(2))
    page = run(tmp_path)
    assert "—" not in cells(page, "MSE, SGD")[0]
    assert cells(page, "MSE, Adam")[0][2:4] == ["—", "—"]
    assert (tmp_path / "eighteen_networks" / "figure_4.png").exists()


def test_the_experiments_are_those_of_the_report():
    """There are eighteen nets 2-25-25-25-1, batches of 5, and 300 epochs, or 150 for Adam; momentum is averaged."""
    options = parser("", "", "", 1).parse_args([])
    found = eighteen_networks.experiments(options)
    assert len({one.name for one in found}) == 18
    assert {one.batch_size for one in found} == {5}
    assert {(type(one.opt), one.epochs) for one in found} == {(fn.SGD, 300), (fn.Adam, 150)}
    assert sum(getattr(one.opt, "averaged", False) for one in found) == 6
    for one in found:
        widths = [layer.in_features for layer in one.net if isinstance(layer, fn.Linear)]
        assert [*widths, one.net[-2].out_features] == [2, 25, 25, 25, 1]


@pytest.mark.parametrize("activation", eighteen_networks.ACTIVATIONS)
@pytest.mark.parametrize("row", eighteen_networks.ROWS, ids=", ".join)
def test_every_net_learns(activation, row):
    """Ten epochs lower the training loss of each."""
    losses = [perform(eighteen_networks.experiment(activation, *row, 10), "funcnet", 0)["curves"]["loss"]][0]
    assert losses[-1] < losses[0]


def test_averaged_momentum_is_the_formula_of_the_report():
    """v ← m v + (1 - m) g from v = 0, then p ← p - lr v, is computed by hand for two steps."""
    one = eighteen_networks.experiment("Tanh", "MSE", "SGD")
    params = fn.tree.cast(one.net.init(0), torch.float64)
    x, target = fn.random.normal(1, (5, 2), dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64)
    train, _, current = funcnet_training(one, params)
    v = fn.tree.zeros_like(params)
    by_hand = params
    for _ in range(2):
        train([(x, target)])
        _, grads, _ = fn.value_and_grads(one.net, one.loss)(by_hand, x, target)
        v = fn.tree.map(lambda old, g: 0.9 * old + 0.1 * g, v, grads)
        by_hand = fn.tree.map(lambda p, along: p - eighteen_networks.RATES["SGD"] * along, by_hand, v)
    assert torch.allclose(fn.tree.ravel(current()), fn.tree.ravel(by_hand), rtol=0, atol=1e-12)
