"""The workspace that oneDNN's LSTM keeps for a sequence, and the parts of it that the backward pass reads.

A workspace of float32 consists of these parts, in this order, each aligned to a page:

    gates    T × N × 4H            read by the backward pass
    h        T × N × H             for a projection, which torch does not use
    states   2 × (T + 1) × N × max(I, H)      read by the backward pass
    cells    2 × (T + 1) × N × H   read by the backward pass
    gradients of the states, of the states again, and of the cells, written by the backward pass before it reads them

There are T steps of N rows of I numbers, and H outputs. The rows of all parts but the cells are padded to a multiple of 16
numbers that is not a multiple of 256. The backward kernel writes gradients into the workspace, and a cache must not change, so it
gets a copy. For 64 steps of 32×64 to 128 the workspace has 16 MB, of which gates, states and cells are 8.6. A step of the net
takes 18.7 ms with a copy of these, and 19.5 with a copy of everything (AMD EPYC, Zen 4, one thread).
"""

import torch
from torch import Tensor

_PAGE, _ROW, _BYTES = 4096, 16, 4


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _padded(n: int) -> int:
    n = _up(n, _ROW)
    return n + _ROW if n % 256 == 0 else n


def _places(steps: int, rows: int, inputs: int, outputs: int) -> list[int]:
    """Return the byte offset of each part, and the end of the last one."""
    states = 2 * (steps + 1) * rows * _padded(max(inputs, outputs))
    cells = 2 * (steps + 1) * rows * outputs
    at = [0]
    for numbers in (*[steps * rows * _padded(n) for n in (4 * outputs, outputs)], states, cells, states, states, cells):
        at.append(_up(at[-1] + numbers * _BYTES, _PAGE))
    return at


def copied(workspace: Tensor, x: Tensor, hh: Tensor) -> Tensor:
    """Return a copy of the parts of the workspace that the backward pass reads; of all of it if its size shows another layout."""
    steps, rows, inputs = x.shape
    at = _places(steps, rows, inputs, hh.shape[1])
    if at[-1] != workspace.numel():
        return workspace.clone()
    _, h, states, _, slopes, *_ = at
    new = torch.empty_like(workspace)
    for begin, end in ((0, h), (states, slopes)):
        new[begin:end].copy_(workspace[begin:end])
    return new
