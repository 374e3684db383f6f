"""Kernels of embeddings. Times are of 16×64 indices and rows of 128."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_eager, is_plain
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten

_embedding_backward: Callable[..., Tensor] = _aten.embedding_dense_backward.default

# The rows of a table at integers, in one kernel: 12 µs, by indexing 93.
embedding: Callable[[Tensor, Tensor], Tensor] = torch.embedding


def without_padding(y: Tensor, x: Tensor, padding: int) -> Tensor:
    """Return rows y looked up at x with zeros for those at ``padding``; y must be new, and may be written to.

    Where the numbers can be read, the few rows are found first: 32×20 rows of 64 take 7 µs more than the look-up, 32×128 of 256
    take 10 more; with ``masked_fill`` 22 and 550.
    """
    if is_plain(y, x):
        rows = (x.reshape(-1) == padding).nonzero().reshape(-1)
        return y.reshape(-1, y.shape[-1]).index_fill_(0, rows, 0.0).reshape(y.shape)
    return y.masked_fill((x == padding).unsqueeze(-1), 0.0)


def embedding_backward(gy: Tensor, x: Tensor, count: int, padding: int) -> Tensor:
    """Sum the rows of gy into the rows, ``count`` in all, that x names, those of ``padding`` left out (-1 is none).

    Of 65 rows 32 µs, of 50000 990; torch's own kernel 69 and 1217. That one is left for other devices, where the order of a
    sum by ``index_add_`` is anyone's guess, and for transforms, under which nothing may be written to. Rows in half precision are
    summed in single: 1000 ones in bfloat16 would come to 256.
    """
    g = in_single(gy)
    if type(gy) is not Tensor or not (is_eager() and gy.is_cpu):
        return rounded(_embedding_backward(g, x, count, padding, False), gy)
    gw = g.new_zeros(count, gy.shape[-1]).index_add_(0, x.reshape(-1), g.reshape(-1, gy.shape[-1]))
    if padding >= 0:
        gw[padding] = 0
    return rounded(gw, gy)
