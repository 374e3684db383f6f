"""The part of oneDNN's workspace that an LSTM's backward pass needs."""

from copy import deepcopy as copy_deeply

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


def same_bits(ones, others):
    """Tell whether two rows of tensors have the same bits."""
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_backward_pass_reads_what_is_kept_only(shape):
    """Gradients have the same bits if the rest is NaN, and what is kept is not modified."""
    *given, kept = forward(*shape)
    before, whole = kept.clone(), vars(kept)["whole_workspace"]
    assert kept.numel() < whole.numel()
    first = lstm_operators.run_back(*given, kept)
    whole[kept.numel() :] = 255
    assert same_bits(lstm_operators.run_back(*given, kept), first)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_of_what_is_kept_gives_the_same_bits(shape, monkeypatch):
    """It is copied to a new workspace, without the part in its middle that is not read."""
    *given, kept = forward(*shape)
    poisoned, copy, fresh = [], kept.clone(), torch.Tensor.new_empty

    def all_nan(like, size):
        poisoned.append(fresh(like, size).fill_(255))
        return poisoned[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", all_nan)
    found = lstm_operators.run_back(*given, copy)
    monkeypatch.undo()
    assert len(poisoned) == 1
    assert same_bits(found, lstm_operators.run_back(*given, kept))


def test_a_workspace_is_lent_to_one_call_at_a_time():
    """Another call gets a copy meanwhile, and later calls the workspace itself, also after an error."""
    x, _, hh, *_, kept = forward(3, 2, 7, 6)
    whole = vars(kept)["whole_workspace"]
    with workspaces.workspace_of(kept, x, hh) as first, workspaces.workspace_of(kept, x, hh) as second:
        assert first is whole
        assert second.data_ptr() != whole.data_ptr()
        assert second.shape == whole.shape
    with pytest.raises(ZeroDivisionError), workspaces.workspace_of(kept, x, hh):
        _ = 1 / 0
    with workspaces.workspace_of(kept, x, hh) as again:
        assert again is whole


def test_a_deep_copy_is_independent():
    """Its backward pass writes to its own workspace."""
    *given, kept = forward(5, 4, 64, 64)
    copy = copy_deeply(kept)
    assert vars(copy)["whole_workspace"].data_ptr() == copy.data_ptr() != kept.data_ptr()
    assert same_bits(lstm_operators.run_back(*given, copy), lstm_operators.run_back(*given, kept))


def test_a_workspace_of_another_layout_is_kept_and_copied_whole():
    """With one more page, the positions of the parts are unknown."""
    x, hh = torch.zeros(3, 2, 7), torch.zeros(24, 6)
    workspace = fn.random.randint(0, (8 * 4096,), 0, 256).to(torch.uint8)
    assert workspaces.kept_of(workspace, x, hh) is workspace
    new = workspaces.copied(workspace, x, hh)
    assert torch.equal(new, workspace)
    assert new.data_ptr() != workspace.data_ptr()
