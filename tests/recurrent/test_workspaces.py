"""The part of oneDNN's workspace that an LSTM's backward pass needs."""

import pytest
import torch

import funcnet as fn
from funcnet.kernels.recurrent import lstm_operators, workspaces

SHAPES = [(1, 1, 1, 1), (3, 2, 7, 6), (5, 4, 64, 64), (9, 3, 20, 256), (4, 33, 256, 20), (17, 5, 100, 64), (2, 8, 300, 128)]
"""Numbers of steps, rows, inputs and outputs."""


def forward(steps, rows, inputs, outputs):
    """Return the arguments of the backward kernel, the workspace last."""
    draw = lambda i, *shape: fn.random.normal(fn.fold_in(0, i), shape)
    x, h, c = draw(0, steps, rows, inputs), draw(1, 1, rows, outputs), draw(2, 1, rows, outputs)
    w = [draw(3, 4 * outputs, inputs), draw(4, 4 * outputs, outputs), draw(5, 4 * outputs), draw(6, 4 * outputs)]
    y, h_n, c_n, workspace = lstm_operators.run(x, *w, h, c, True)
    slopes = [torch.ones_like(y), torch.ones_like(h_n), torch.ones_like(c_n)]
    return x, *w, h, c, y, h_n, c_n, *slopes, workspace


@pytest.mark.parametrize("shape", SHAPES)
def test_the_backward_pass_reads_what_was_copied_only(shape, monkeypatch):
    """Gradients have the same bits if everything that is not copied is NaN, and the workspace is not modified."""
    given = forward(*shape)
    before = given[-1].clone()
    monkeypatch.setattr(lstm_operators, "copied", lambda workspace, x, hh: workspace.clone())
    whole = lstm_operators.run_back(*given)
    monkeypatch.undo()
    poisoned = []

    def all_nan(like):
        poisoned.append(torch.full_like(like, 255))
        return poisoned[-1]

    monkeypatch.setattr(workspaces.torch, "empty_like", all_nan)
    part = lstm_operators.run_back(*given)
    monkeypatch.undo()
    assert len(poisoned) == 1  # otherwise the layout is unknown, and all was copied
    assert all(torch.equal(one, other) for one, other in zip(whole, part, strict=True))
    assert torch.equal(given[-1], before)


def test_a_workspace_of_another_layout_is_copied_whole():
    """With one more page, the positions of the parts are unknown."""
    x, hh = torch.zeros(3, 2, 7), torch.zeros(24, 6)
    workspace = fn.random.randint(0, (8 * 4096,), 0, 256).to(torch.uint8)
    new = workspaces.copied(workspace, x, hh)
    assert torch.equal(new, workspace)
    assert new.data_ptr() != workspace.data_ptr()
