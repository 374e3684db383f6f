"""Kernels of embeddings. Times are of 16×64 indices and rows of 128."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_eager

_aten = torch.ops.aten

_embedding_backward: Callable[..., Tensor] = _aten.embedding_dense_backward.default

# The rows of a table at integers, in one kernel: 12 µs, by indexing 93.
embedding: Callable[[Tensor, Tensor], Tensor] = torch.embedding


def embedding_backward(gy: Tensor, x: Tensor, count: int, padding: int) -> Tensor:
    """Sum the rows of gy into the rows, ``count`` in all, that x names, those of ``padding`` left out (-1 is none).

    Of 65 rows 32 µs, of 50000 990; torch's own kernel 69 and 1217. That one is left for other devices, where the order of a
    sum by ``index_add_`` is anyone's guess, and for transforms, under which nothing may be written to.
    """
    if type(gy) is not Tensor or not (is_eager() and gy.is_cpu):
        return _embedding_backward(gy, x, count, padding, False)
    gw = gy.new_zeros(count, gy.shape[-1]).index_add_(0, x.reshape(-1), gy.reshape(-1, gy.shape[-1]))
    if padding >= 0:
        gw[padding] = 0
    return gw
