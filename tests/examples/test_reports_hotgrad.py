"""Report 002, run small: its tables, its files, and Linear made of operations."""

import re
from types import SimpleNamespace

import pages
import pytest
import torch
from pages import interrupt, refuse

import funcnet as fn
from examples.reports import hotgrad, operations, paper
from examples.reports.experiment import perform


def run(folder):
    """Run two epochs of one repetition, and return the page."""
    return hotgrad.main(["--quick", "--out", str(folder)]).read_text()


def cells(page, first):
    """Return the cells of the only row that begins with the given cell."""
    (row,) = pages.cells(page, first)
    return row


def test_the_page_compares_all_models_and_a_rerun_trains_nothing(tmp_path, monkeypatch):
    """Both frameworks' cells agree, each model has a row, the float64 gap is rounding, and the second page equals the first."""
    page = run(tmp_path)
    for measure in ("train accuracy, %", "test accuracy, %"):
        ours, theirs = cells(page, measure)[2:4]
        assert float(ours) == pytest.approx(float(theirs), abs=0.2)
    for model in ("funcnet", "torch.nn", hotgrad.OPERATIONS, *hotgrad.BASELINES):
        assert all(re.fullmatch(r"\d+\.\d+", cell) for cell in cells(page, model)[1:])
    assert float(re.search(r"in float64: (\S+)\.\n", page).group(1)) < 1e-9
    assert (tmp_path / "hotgrad" / "figure.png").read_bytes().startswith(b"\x89PNG")
    for module, name in ((paper, "perform"), (hotgrad, "fitted"), (hotgrad, "baseline")):
        monkeypatch.setattr(module, name, refuse)
    assert run(tmp_path) == page


def test_ctrl_c_among_the_baselines_leaves_the_tables_of_what_has_finished(tmp_path, monkeypatch):
    """The net's own numbers are there, and the baselines have dashes."""
    monkeypatch.setattr(hotgrad, "baseline", interrupt)
    page = run(tmp_path)
    assert "—" not in cells(page, "funcnet")
    assert cells(page, "RBF SVM")[1:] == ["—", "—", "—"]


def test_linear_of_operations_keeps_the_laws():
    """A graph of MatMul and Add on parameters is a layer like any other."""
    fn.testing.check_vjp(operations.linear_of_operations(3, 2), fn.random.normal(0, (5, 3)))
    fn.testing.law_halves(operations.linear_of_operations(3, 2), fn.random.normal(0, (5, 3)))


def test_linear_of_operations_trains_as_linear_does():
    """Outputs and gradients match fn.Linear up to rounding."""
    plain, made = hotgrad.network(fn.Linear), hotgrad.network(operations.linear_of_operations)
    params, x = fn.tree.cast((plain.init(1), fn.random.normal(2, (9, 2))), torch.float64)
    y, cache = plain.apply(params, x)
    same, kept = made.apply(operations.as_operations(params), x)
    torch.testing.assert_close(same, y, rtol=0, atol=1e-14)
    ours = operations.as_operations(plain.grads(params, cache, y))
    theirs = made.grads(operations.as_operations(params), kept, y)
    torch.testing.assert_close(fn.tree.ravel(theirs), fn.tree.ravel(ours), rtol=0, atol=1e-13)


def test_sums_of_gradients_are_those_of_central_differences():
    """Each row's two numbers agree to eight digits."""
    rows = operations.sums_of_gradients()
    assert len(rows) == 6
    assert [float(row[1]) for row in rows] == pytest.approx([float(row[2]) for row in rows], abs=1e-8)


def test_grads_asks_nothing_of_nodes_before_the_first_parameter():
    """The graph's grads skips the features and runs fewer kernels; its vjp calls every node once."""
    rows = operations.only_what_is_needed()
    by_grads = {row[0].split("`")[1]: row[2] for row in rows[:-1]}
    assert by_grads == {"products": "nothing", "features": "nothing", "hidden": "grads × 1", "active": "vjp × 1", "y": "vjp × 1"}
    assert {row[1] for row in rows[:-1]} == {"vjp × 1"}
    assert int(rows[-1][2]) < int(rows[-1][1])


def test_every_mistake_gets_a_sentence():
    """The error has the caller, the rule and the value, and the place in a net."""
    messages = operations.errors(hotgrad.network(fn.Linear))
    assert all(re.match(r"ValueError: .+: .+, got ", message) for message in messages)
    assert messages[0].endswith("\n  in serial, layer 0")


def test_three_repetitions_have_the_test_accuracy_of_the_report():
    """At full size at least 98 % of the test points are right."""
    (experiment,) = hotgrad.experiments(SimpleNamespace(epochs=None))
    finals = [perform(experiment, "funcnet", seed)["final"]["test accuracy"] for seed in range(3)]
    assert sum(finals) / 3 >= 0.98
