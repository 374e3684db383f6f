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
    """Return rows of a table, looked up by integers in one kernel: 12 µs, and 93 with indexing.

    Partial rows from a DTensor that is sharded by rows are summed immediately: torch can sum them only once, and a residual
    connection reads them twice.
    """
    y = torch.embedding(w, x)
    return y if type(y) is Tensor else summed(y)


def padded_embedding(w: Tensor, x: Tensor, padding: int) -> Tensor:
    """Return rows of a table, looked up by integers, with zeros at the index ``padding``.

    In eager mode, a small table is copied with zeros in the row, which adds 2 µs to looking up 48 rows of 8 in a table of 50.
    With a large table the padded positions are found and set to zero, which adds 7 µs for 32×20 rows of 64 and 10 µs for 32×128
    rows of 256; ``masked_fill`` adds 22 and 550.
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
    """Sum the rows of gy into ``count`` rows by the indices x, except at the index ``padding`` (-1 for no padding).

    ``index_add_`` takes 32 µs for a table of 65 rows and 990 for 50000, torch's embedding kernel 69 and 1217. The latter is used
    on other devices, where ``index_add_`` sums in an undefined order, and under transforms, which forbid writes. Half precision
    is summed in float32: 1000 ones in bfloat16 would add up to 256.
    """
    g = in_single(gy)
    if type(gy) is not Tensor or not (GRADIENT.value == 0 and is_eager() and gy.is_cpu):
        return rounded(_embedding_backward(g, x, count, padding, False), gy)
    gw = g.new_zeros(count, gy.shape[-1]).index_add_(0, x.reshape(-1), g.reshape(-1, gy.shape[-1]))
    if padding >= 0:
        gw[padding] = 0
    return rounded(gw, gy)
