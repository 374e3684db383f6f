"""The benchmark of interop: contenders compute the same, and the page has all rows. No test asserts on a time."""

from pathlib import Path

import pytest
import torch
from pages import cells
from torch import nn

import funcnet as fn
from examples.benchmarks import interop
from examples.benchmarks.interop_nets import MLP, Encoder, LSTMClassifier, UNet, cases

CASES = {
    "MLP": (MLP, torch.randn(6, 2), 2),
    "Encoder": (Encoder, torch.randn(2, 4, 64), 1),
    "LSTM": (LSTMClassifier, torch.randint(100, (2, 5)), 1),
    "UNet": (lambda: UNet(2), torch.randn(2, 3, 8, 8), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_net_and_its_module_compute_the_same(name: str):
    """Outputs, gradients, and the losses of three steps with momentum agree."""
    found = [*interop.passes(CASES[name]).values()]
    torch.testing.assert_close(found[0](), found[1](), rtol=1e-4, atol=1e-5)
    ours, theirs = fn.tree.leaves(found[2]()), found[3]()
    total = sum(float(leaf.square().sum()) for leaf in ours)
    assert total > 0
    assert total == pytest.approx(sum(float(leaf.square().sum()) for leaf in theirs), rel=1e-3)
    for _ in range(3):
        torch.testing.assert_close(found[4](), found[5](), rtol=1e-3, atol=1e-4)


def test_the_quick_page_is_written_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The tables are below the head; every row has all columns, with positive numbers."""
    monkeypatch.setattr(interop, "cases", lambda: CASES)
    interop.main(["--rounds", "1", "--quick", "--page", str(tmp_path / "page.md")])
    printed, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    assert page.endswith(printed)
    for name in [*CASES][:2]:
        assert [len(row) for row in cells(printed, name)] == [10, 3, 4]
        assert all(float(cell.replace(",", "")) >= 0 for row in cells(printed, name) for cell in row[1:])


def test_a_replaced_block_leaves_the_loss_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """The module, the module with a block in as_module, and the net agree."""
    make = cases()["ResNet-18 of width 16, 16 images"][0]
    losses = [float(step()) for step in interop.replaced((make, torch.randn(2, 3, 8, 8), 1)).values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)


def test_the_committed_page_has_all_rows():
    """The page was written with the current nets."""
    page = (Path(interop.__file__).parent / "results" / "INTEROP.md").read_text()
    for name in cases():
        assert len(cells(page, name)[0]) == 10
    for name in interop.FROM_TORCHVISION:
        assert len(cells(page, name)) == 1
    assert len(cells(page, "20 steps")[0]) == 6


def test_a_step_of_a_module_leaves_the_module_as_it_is():
    """The step trains a copy."""
    module = nn.Linear(2, 10)
    before = module.weight.clone()
    interop.step_of_module(module, torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))()
    assert torch.equal(module.weight, before)
