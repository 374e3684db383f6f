"""oneDNN's LSTM over long sequences, piece by piece.

The kernel keeps about 16 numbers for each row, step and feature. A block of memory above 32 MB is returned to the system when it
is freed, and provided again page by page in the next step. Pieces have smaller blocks, which stay in the process. Forward and
backward pass in ms, whole and in pieces of at most 32 MB (one core of an AMD EPYC, Zen 4; freed memory retained):

    steps × rows × inputs to outputs     whole     pieces     torch.nn's calls
    4096 × 4 × 32 to 64                     72         45     46
    512 × 32 × 64 to 128                   162        119     116
    128 × 64 × 256 to 256                  302        268     309
    256 × 16 × 512 to 512                  529        524     547
    1024 × 4 × 32 to 64, one piece          11         11     11
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.recurrent import lstm_operators

PIECES = choice("long LSTM", {"whole": NEVER, "pieces": 0}, lambda cpu: 1 << 23, "numbers kept")
"""Number of elements that oneDNN keeps for a sequence above which it is split into pieces that keep at most as many."""


def run(x: Tensor, *given: Any) -> tuple[Any, ...]:
    """Return all outputs, the last state, and the workspace; for several pieces the workspace and the initial state of each."""
    *weights, h, c, training = given
    steps = _steps(x, h.shape[-1]) if training else len(x)
    if steps >= len(x):
        return lstm_operators.run(x, *given)
    ys, kept = [], []
    for piece in torch.split(x, steps):
        y, h_n, c_n, workspace = lstm_operators.run(piece, *weights, h, c, True)
        ys.append(y)
        kept.append((workspace, h, c))
        h, c = h_n, c_n
    return torch.cat(ys), h, c, tuple(kept)


def run_back(kernel: Callable[..., tuple[Tensor, ...]], *given: Any) -> tuple[Tensor, ...]:
    """Return the gradients of x, both weights, both biases and the first state, without writing to the workspaces."""
    x, *weights, _, _, y, h_n, c_n, gy, gh, gc, kept = given
    if isinstance(kept, Tensor):
        return kernel(*given)
    steps, gxs, sums = -(-len(x) // len(kept)), [], None
    pieces = [*zip(kept, torch.split(x, steps), torch.split(y, steps), torch.split(gy, steps), strict=True)]
    for (workspace, h, c), x_, y_, gy_ in reversed(pieces):
        gx, *gws, gh, gc = kernel(x_, *weights, h, c, y_, h_n, c_n, gy_, gh, gc, workspace)
        gxs.append(gx)
        sums = gws if sums is None else [a + b for a, b in zip(sums, gws, strict=True)]
        h_n, c_n = h, c
    return torch.cat(gxs[::-1]), *(sums or ()), gh, gc


def _steps(x: Tensor, outputs: int) -> int:
    """Return the number of steps of a piece; the lengths of pieces differ as little as possible."""
    kept = x.shape[1] * (x.shape[2] + 16 * outputs)
    return -(-len(x) // -(-len(x) // max(1, PIECES.value // kept)))
