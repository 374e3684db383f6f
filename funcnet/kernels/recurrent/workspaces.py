"""What oneDNN's LSTM keeps of a sequence, and how much of it the backward pass needs.

A workspace of float32 holds, one after the other and each starting at a whole page,

    gates    T × N × 4H            read by the backward pass
    h        T × N × H             for layers with a projection, which torch does not use
    states   2 × (T + 1) × N × max(I, H)
    cells    2 × (T + 1) × N × H   read by the backward pass
    slopes   of states, of states, and of cells, which the backward pass writes before it reads them

for T steps of N rows of I numbers, and H outputs. Rows of all but the cells are padded to a multiple of 16 numbers that is not a
multiple of 256. The kernel writes slopes into the workspace that it is given, and a cache may not change, so a cache holds the
part up to the slopes only. That tensor is a view which remembers the whole workspace, and the backward pass borrows it. If it is
lent to another thread, or if the tensor is a copy, what is read is copied to a new workspace.

For 64 steps of 32×64 to 128 the workspace has 16 MB; gates, states and cells have 8.6. A step of the net takes 14.9 ms, with a
copy of these 16.0, as long as torch.nn's 15.2 (AMD EPYC, Zen 4, one thread).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_PAGE, _ROW, _BYTES = 4096, 16, 4
_H, _STATES, _SLOPES = 1, 2, 4  # positions of parts in what ``_places`` returns
_WHOLE = "whole_workspace"


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded(n: int) -> int:
    n = _up(n, _ROW)
    return n + _ROW if n % 256 == 0 else n


def _places(x: Tensor, hh: Tensor) -> list[int]:
    """Return the byte offset of each part, and the end of the last one."""
    (steps, rows, inputs), outputs = x.shape, hh.shape[1]
    states = 2 * (steps + 1) * rows * _padded(max(inputs, outputs))
    cells = 2 * (steps + 1) * rows * outputs
    at = [0]
    for numbers in (*[steps * rows * _padded(n) for n in (4 * outputs, outputs)], states, cells, states, states, cells):
        at.append(_up(at[-1] + numbers * _BYTES, _PAGE))
    return at


def kept_of(workspace: Tensor, x: Tensor, hh: Tensor) -> Tensor:
    """Return what a cache holds of a new workspace: what is read; all of it if its size is that of another layout."""
    at = _places(x, hh)
    if at[-1] != workspace.numel():
        return workspace
    kept = workspace[: at[_SLOPES]]
    vars(kept)[_WHOLE] = workspace
    return kept


@contextmanager
def workspace_of(kept: Tensor, x: Tensor, hh: Tensor) -> Iterator[Tensor]:
    """Lend a workspace that the backward pass may write to: the one of which ``kept`` is a view, or a new one."""
    whole = vars(kept).pop(_WHOLE, None)  # in one step: another thread finds none
    if whole is None:
        yield copied(kept, x, hh)
        return
    try:
        yield whole
    finally:
        vars(kept)[_WHOLE] = whole


def copied(kept: Tensor, x: Tensor, hh: Tensor) -> Tensor:
    """Return a workspace with what the backward pass reads; a copy of all that is kept if its size is that of another layout."""
    at = _places(x, hh)
    if kept.numel() != at[_SLOPES]:
        return kept.clone()
    new = kept.new_empty(at[-1])
    for begin, end in ((0, at[_H]), (at[_STATES], at[_SLOPES])):
        new[begin:end].copy_(kept[begin:end])
    return new
