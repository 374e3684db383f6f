"""Per-example gradients and their squared norms: products of each example's rows with its gradients of y.

    grads[i] = gyᵢᵀ xᵢ      for a single row, the outer product     squares[i] = ‖gyᵢᵀ xᵢ‖² = Σ (xᵢ xᵢᵀ) ⊙ (gyᵢ gyᵢᵀ)

x (N, t, in), gy (N, t, out): t rows for each of N examples.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.conv import convolution_backward
from funcnet.kernels.large_memory import empty
from funcnet.kernels.tracing import is_plain
from funcnet.precision import in_single, rounded

PIECES = choice("examples at a time", {"all": NEVER, "pieces": 0}, lambda cpu: 1 << 18, "numbers of gradients")
"""Number of gradient elements that are computed at a time: 1 MB, which fits in a core's cache together with the operands."""

CONVOLUTIONS = choice("example gradients of convolutions", {"bmm": NEVER, "onednn": 0}, lambda cpu: 100_000, "products")
"""Number of products per example from which oneDNN convolves examples as groups; see ``is_for_onednn``."""


def weight_grads(gy: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Return gyᵢᵀ xᵢ for every example, (N, out, in), optionally written to ``out``.

    The result is the largest tensor involved, and writing it takes most of the time: 64 gradients of 1024×784, 205 MB, take 15 ms
    in huge pages, and 90 in small ones. For single rows ``bmm`` is as fast as a broadcast product, which writes each element
    once.
    """
    g, single = gy.mT, x.shape[1] == 1
    if not is_plain(gy, x):
        return g * x if single else torch.bmm(g, x)
    out = empty((len(x), gy.shape[2], x.shape[2]), x) if out is None else out
    return torch.mul(g, x, out=out) if single else torch.bmm(g, x, out=out)


def squares(gy: Tensor, x: Tensor, *, bias: bool) -> Tensor:
    """Return ‖gyᵢᵀ xᵢ‖² for every example, (N,), plus ‖Σ gyᵢ‖² if there is a bias.

    The gradient itself is computed only if that takes fewer multiplications. The products of rows take t² (in + out), the
    gradient t in out. For 32 examples of 16 rows of 1152 and 128 elements, the former take 0.3 ms and the latter 2.1; for 576
    rows of 25 and 6 elements 68 and 0.15. The gradient is computed for a few examples at a time, in memory that stays in the
    processor's cache: all at once the 2.1 ms would be 2.9.
    """
    gy, x = in_single(gy), in_single(x)
    if has_fewer_products(x.shape[1], x.shape[2], gy.shape[2]):
        seen, g = torch.bmm(x, x.mT), torch.bmm(gy, gy.mT)
        return ((seen + 1.0 if bias else seen) * g).sum((1, 2))
    found = _weight_squares(gy, x)
    return found + bias_squares(gy.sum(1)) if bias else found


def bias_squares(gb: Tensor) -> Tensor:
    """Return ‖gbᵢ‖² for every example."""
    return in_single(gb).square().sum(1)


def _weight_squares(gy: Tensor, x: Tensor) -> Tensor:
    if not is_plain(gy, x):
        return torch.bmm(gy.mT, x).square().sum((1, 2))
    count = min(chunk(gy.shape[2] * x.shape[2], gy, x), len(x))
    product, chunks = x.new_empty(count, gy.shape[2], x.shape[2]), zip(pieces(gy, count), pieces(x, count), strict=True)
    norms = [torch.linalg.vector_norm(torch.bmm(g.mT, rows, out=product[: len(g)]), dim=(1, 2)) for g, rows in chunks]
    return torch.cat(norms).square()


_MOST_OF_A_WINDOW = 3125  # then 100 000 products have at least 32 windows


def is_for_onednn(gy: Tensor, x: Tensor, windows: int, size: int) -> bool:
    """Return whether to compute the gradients of ``size`` elements over this many windows as one grouped convolution.

    oneDNN computes 32 gradients of 64×64×3×3 over 64 windows each in 1.4 ms; ``bmm`` takes 2.0, plus 0.7 to copy the windows. For
    16 windows of 128×64×3×3 oneDNN takes 1.8, and ``bmm`` with the copies 1.5; for 6×1×5×5 and images of 28×28 0.31 and 0.2.
    """
    return windows * min(size, _MOST_OF_A_WINDOW) >= CONVOLUTIONS.value and gy.dtype is torch.float32 and is_plain(gy, x)


def convolution_grads(gy: Tensor, x: Tensor, shape: tuple[int, ...], groups: int, *options: Any) -> Tensor:
    """Return the gradients of a weight of this shape, one row per example, with the examples as groups of one convolution."""
    n, axes = len(x), len(shape) - 2
    weight = x.new_empty(n * shape[0], *shape[1:])
    both = gy.reshape(1, -1, *gy.shape[2:]), x.reshape(1, -1, *x.shape[2:])
    rest = (*options, False, [0] * axes, n * groups, [False, True, False])
    return convolution_backward(*both, weight, [n * shape[0]], *rest)[1].view(n, -1)


def has_fewer_products(rows: int, ins: int, outs: int) -> bool:
    """Return whether the products of rows with each other take fewer multiplications than a gradient of outs × ins elements."""
    return rows == 1 or rows * (ins + outs) <= ins * outs


def chunk(size: int, *factors: Tensor) -> int:
    """Return the number of examples of ``size`` elements to process at a time: all while tracing or under transforms."""
    return max(1, PIECES.value // max(size, 1)) if is_plain(*factors) else max(len(factors[0]), 1)


def pieces(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Split x into pieces of ``count`` examples; the last one may be smaller."""
    return torch.split(x, count)


def table_grads(gy: Tensor, x: Tensor, count: int, padding: int) -> Tensor:
    """Return the gradient of a table of ``count`` rows for every example, (N, count, dim).

    gy (N, t, dim) is summed into the rows given by x (N, t), except the row ``padding`` (-1 for no padding).
    """
    n, g = len(x), in_single(gy)
    g = g.masked_fill((x == padding).unsqueeze(2), 0.0) if padding >= 0 else g
    rows = (x + count * torch.arange(n, device=x.device).unsqueeze(1)).reshape(-1)
    if is_plain(gy):
        sums = empty((n * count, g.shape[2]), g).zero_()
        sums.index_add_(0, rows, g.reshape(-1, g.shape[2]))
    else:
        sums = g.new_zeros(n * count, g.shape[2]).index_add(0, rows, g.reshape(-1, g.shape[2]))
    return rounded(sums, gy).view(n, count, -1)


def table_squares(gy: Tensor, x: Tensor, count: int, padding: int) -> Tensor:
    """Return the squared norm of each of these gradients: Σ ⟨gyᵢ, gyⱼ⟩ over the rows i, j of an example with the same index."""
    if x.shape[1] > count:
        return table_grads(gy, x, count, padding).square().sum((1, 2))
    g = in_single(gy)
    g = g.masked_fill((x == padding).unsqueeze(2), 0.0) if padding >= 0 else g
    return torch.where(x.unsqueeze(1) == x.unsqueeze(2), torch.bmm(g, g.mT), 0.0).sum((1, 2))
