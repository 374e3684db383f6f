"""Kernels of embeddings. Times are for 16×64 indices and rows of 128."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.sharding_rules import summed
from funcnet.kernels.tracing import is_eager, is_plain
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten

_embedding_backward: Callable[..., Tensor] = _aten.embedding_dense_backward.default

PADDING = choice("rows at padding", {"copied table": NEVER, "found rows": 0}, lambda cpu: 20_001, "numbers of the table")
"""Number of elements of the table from which rows at padding are found and set to zero; see ``padded_embedding``."""

GRADIENT = choice("gradient of embeddings", {"torch": NEVER, "index_add": 0}, lambda cpu: 0)
"""Whether rows of a gradient are summed with ``index_add_``; see ``embedding_backward``."""


def embedding(w: Tensor, x: Tensor) -> Tensor:
    """Return the rows of a table at integers, in one kernel: 12 µs, with indexing 93.

    Partial rows from a DTensor that is sharded by rows are summed at once: torch can sum them only once, and a residual
    connection reads them twice.
    """
    y = torch.embedding(w, x)
    return y if type(y) is Tensor else summed(y)


def padded_embedding(w: Tensor, x: Tensor, padding: int) -> Tensor:
    """Return the rows of a table at integers, zeros for those at ``padding``.

    If the numbers can be read, a small table is copied with zeros in it, which takes 2 µs more than the look-up for 48 rows of 8
    in 50. For a large table the few rows are found first: 32×20 rows of 64 take 7 µs more, 32×128 of 256 take 10 more. With
    ``masked_fill`` these take 22 and 550.
    """
    if is_plain(w, x):
        if w.numel() < PADDING.value or (PADDING.value and w.shape[0] <= x.numel()):
            table = w.clone()
            table.select(0, padding).zero_()
            return embedding(table, x)
        y = embedding(w, x)
        rows = (x.reshape(-1) == padding).nonzero().reshape(-1)
        return y.reshape(-1, y.shape[-1]).index_fill_(0, rows, 0.0).reshape(y.shape)
    return embedding(w, x).masked_fill((x == padding).unsqueeze(-1), 0.0)


def embedding_backward(gy: Tensor, x: Tensor, count: int, padding: int) -> Tensor:
    """Sum the rows of gy into ``count`` rows by the indices x, without those of ``padding`` (-1 is none).

    65 rows take 32 µs, 50000 rows 990; with torch's own kernel 69 and 1217. That kernel is used on other devices, where the order
    of ``index_add_``'s sums is undefined, and under transforms, which forbid writes. Rows in half precision are summed in
    float32: 1000 ones in bfloat16 would add up to 256.
    """
    g = in_single(gy)
    if type(gy) is not Tensor or not (GRADIENT.value == 0 and is_eager() and gy.is_cpu):
        return rounded(_embedding_backward(g, x, count, padding, False), gy)
    gw = g.new_zeros(count, gy.shape[-1]).index_add_(0, x.reshape(-1), g.reshape(-1, gy.shape[-1]))
    if padding >= 0:
        gw[padding] = 0
    return rounded(gw, gy)
