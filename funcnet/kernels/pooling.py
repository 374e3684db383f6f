"""Kernels of pooling, over as many axes as ``kernel`` has entries, with or without a batch."""

import math
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.pooling_operators import MaxPoolOperators
from funcnet.kernels.tiles import tile_max, tile_max_with_indices, tile_reduce, tile_spread
from funcnet.kernels.tracing import is_compiling, is_meta_data, is_plain
from funcnet.kernels.windows import Kernel, Origin, as_two, blank, channelwise, lifted, lowered, origin
from funcnet.precision import HALF, in_single, rounded

_aten = torch.ops.aten

_max_pool: dict[int, Kernel] = {
    2: channelwise(_aten.max_pool2d_with_indices.default),
    3: channelwise(_aten.max_pool3d_with_indices.default),
}
_max_pool_backward: dict[int, Kernel] = {
    2: channelwise(_aten.max_pool2d_with_indices_backward.default),
    3: channelwise(_aten.max_pool3d_with_indices_backward.default),
}
_avg_pool: dict[int, Kernel] = {2: channelwise(_aten.avg_pool2d.default), 3: channelwise(_aten.avg_pool3d.default)}
_avg_pool_backward: dict[int, Kernel] = {
    2: channelwise(_aten.avg_pool2d_backward.default),
    3: channelwise(_aten.avg_pool3d_backward.default),
}
MAXIMA = choice("max pooling", {"torch": NEVER, "slices": 0}, lambda cpu: 1 << 16, "elements")
"""Number of elements of x from which maxima of adjacent windows are computed with slices; see ``tiles_pay``."""

MEANS = choice("mean pooling", {"torch": NEVER, "slices": 0}, lambda cpu: 16384, "elements")
"""Number of elements of x from which means of adjacent windows are computed with slices; see ``_mean_tiles``."""

COMPILED_MAXIMA = choice("compiled max pooling", {"loops": NEVER, "kernel": 0}, lambda cpu: 1 << 16, "elements")
"""Number of elements of x from which compiled code calls eager mode's kernels for maxima with indices.

Inductor's loops compare one element after another. In µs on an AMD EPYC, forward and backward with kernels and with loops: 2×2 on
64×16×28×28 980 and 1720, in channels_last 740 and 1380; on 64×32×14×14 590 and 870, 280 and 620; on 16×16×14×14 140 and 120, 67
and 82; on 8×16×8×8 40 and 22, 31 and 24; 3×3 on 64×16×28×28 1250 and 2350; 2×2×2 on 8×16×16×16×16 820 and 1970. Along
one axis the loops are faster, and those of means are vectorized: 2×2 on 64×32×14×14 takes 190, and in eager mode 420.
"""


def max_pool(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], ceil: bool
) -> tuple[Tensor, Tensor]:
    """Return the largest element of each window, the first of equal ones, and its index in x's flattened axes."""
    if len(kernel) > 1 and operators.serves(x, COMPILED_MAXIMA.value):
        y, indices = operators.run(x, kernel, stride, padding, dilation, ceil)
        return y, indices
    return _max_pool_by_kernel(x, kernel, stride, padding, dilation, ceil)


def _max_pool_by_kernel(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], ceil: bool
) -> tuple[Tensor, Tensor]:
    axes = len(kernel)
    if _side_by_side(kernel, stride, padding, dilation, ceil) and tiles_pay(x, kernel, MAXIMA.value):
        found = tile_max_with_indices(x, kernel)
        if found is not None:
            return found
    x = x.contiguous() if axes == 3 else x  # in channels_last_3d a window of -inf has index 0 of x (torch 2.13.0)
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), as_two(dilation, 1), ceil)
    y, indices = _max_pool[max(axes, 2)](lifted(x, axes), *how)
    return lowered(y, axes, x.dim()), lowered(indices, axes, x.dim())


def max_pool_values(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], ceil: bool
) -> Tensor:
    """Return the largest element of each window, with slices from a quarter of the size: torch's kernel also computes indices."""
    if _side_by_side(kernel, stride, padding, dilation, ceil) and tiles_pay(x, kernel, MAXIMA.value // 4):
        return tile_max(x, kernel)
    return max_pool(x, kernel, stride, padding, dilation, ceil)[0]


def max_pool_backward(
    gy: Tensor,
    indices: Tensor,
    of: Origin,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil: bool,
) -> Tensor:
    """Return the gradient of x: gy at each index. If windows overlap, half precision is summed in float32."""
    how = kernel, stride, padding, dilation, ceil
    if len(kernel) > 1 and operators.serves(gy, COMPILED_MAXIMA.value, of[0]):
        return operators.run_back(gy, indices, of[0], *how)
    return _max_pool_backward_by_kernel(gy, indices, of, *how)


def _max_pool_backward_by_kernel(gy: Tensor, indices: Tensor, of: Origin, *given: Any) -> Tensor:
    kernel, stride, padding, dilation, ceil = given
    axes = len(kernel)
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), as_two(dilation, 1), ceil)
    wide = in_single(gy) if gy.dtype in HALF and (_overlap(kernel, stride) or max(dilation) > 1) else gy
    gx = _max_pool_backward[max(axes, 2)](lifted(wide, axes), blank(wide, of, axes), *how, lifted(indices, axes))
    return rounded(lowered(gx, axes, gy.dim()), gy)


operators = MaxPoolOperators(_max_pool_by_kernel, _max_pool_backward_by_kernel)
"""The two functions above as operators for compiled code."""


def _overlap(kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    return any([s < k for s, k in zip(stride, kernel, strict=True)])  # noqa: C419


def _side_by_side(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], ceil: bool
) -> bool:
    return not (ceil or any(padding)) and stride == kernel and max(dilation) == 1 < max(kernel)


def tiles_pay(x: Tensor, kernel: tuple[int, ...], least: int) -> bool:
    """Return whether slices are faster than torch's loop for maxima of adjacent windows: if x is large and not channels_last.

    Torch's loop always computes indices, and its branches are hard to predict. In µs on an AMD EPYC, with indices, for normal x
    with negative elements set to 0: 2×2 on 64×16×28×28 takes 4190 with torch and 950 with slices, on 64×32×14×14 2200 and 480, on
    16×16×8×8, where call overhead dominates, 40 and 110; 3×3 on 64×16×27×27 takes 2940 and 1300. Slices without indices take 300,
    180, 25 and 290. The backward pass takes 200, 110, 12 and 150 with torch's kernel; masks from x and y instead of indices took
    1500 and 750. On an Intel Xeon, torch's forward loop took 3750 for the first size, its backward kernel 410, slices without
    indices 470 and masks 2570, so slices with indices are used there too. In channels_last torch takes 490 and 240 for the first
    size. Under ``vmap`` torch's kernels run; compiled code has operators: see ``COMPILED_MAXIMA``.
    """
    of = origin(x, len(kernel))
    is_exact = math.prod(of[0][-len(kernel) :]) <= 1 << 24  # indices are computed in the dtype of x, or float32
    return is_plain(x) and _pay(x, of, kernel, least) and is_exact


def _pay(like: Tensor, of: Origin, kernel: tuple[int, ...], least: int) -> bool:
    shape, last = of
    size = math.prod(shape)
    large = type(size) is int and size >= least and math.prod(kernel) <= 9 and (is_plain(like) or is_meta_data(like))
    return large and min([n // k for n, k in zip(shape[-len(kernel) :], kernel, strict=True)]) > 0 and not last


def _mean_tiles(
    like: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool
) -> bool:
    """Return whether strided slices are faster than torch's loop for means: if tensors are large and in full precision.

    In ms, forward and backward: 2×2 on 64×16×28×28 takes 3.4 and 4.8 with torch, 0.4 and 0.9 with slices; on 64×32×10×10 1.1 and
    0.94, 0.07 and 0.10; 2×4 on 64×64×8×8 0.88 and 1.0, 0.11 and 0.16; on 16×16×8×8 0.018 and 0.019, 0.029 and 0.044. In
    channels_last torch takes 0.45 and 0.42 for the first.
    """
    plain = stride == kernel and not ceil and not any(padding) and like.dtype in (torch.float32, torch.float64)
    return plain and _pay(like, of, kernel, MEANS.value)


def avg_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil: bool,
    count_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Return the mean of each window, or its sum over ``divisor``.

    Over three axes half precision is computed in float32, since torch has no such kernel.
    """
    axes = len(kernel)
    if _mean_tiles(x, origin(x, axes), kernel, stride, padding, ceil):
        return tile_reduce(x, kernel, torch.add) / (divisor or math.prod(kernel))
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), ceil, count_pad, divisor)
    y: Tensor = _avg_pool[max(axes, 2)](lifted(in_single(x) if axes == 3 else x, axes), *how)
    return rounded(lowered(y, axes, x.dim()), x)


def avg_pool_backward(
    gy: Tensor,
    of: Origin,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil: bool,
    count_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Return the gradient of x: each gy, divided by its window's divisor, at all elements of the window."""
    axes = len(kernel)
    if _mean_tiles(gy, of, kernel, stride, padding, ceil):
        return tile_spread(gy / (divisor or math.prod(kernel)), gy, of[0], kernel)
    wide = in_single(gy) if gy.dtype in HALF and (axes == 3 or _overlap(kernel, stride)) else gy
    if is_compiling() and count_pad and divisor is None and _overhangs(gy, of, kernel, stride, padding):
        wide, divisor = wide / _counts(gy, of, kernel, stride, padding), 1
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), ceil, count_pad, divisor)
    wider: Tensor = _avg_pool_backward[max(axes, 2)](lifted(wide, axes), blank(wide, of, axes), *how)
    return rounded(lowered(wider, axes, gy.dim()), gy)


def _overhangs(gy: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> bool:
    """Return whether the last window along some axis extends beyond the padding, as it can with ``ceil_mode``."""
    axes = len(kernel)
    rows = zip(gy.shape[-axes:], of[0][-axes:], kernel, stride, padding, strict=True)
    return any([(windows - 1) * s + k > n + 2 * p for windows, n, k, s, p in rows])  # noqa: C419


def _counts(gy: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """Return the number of elements in each window, including padding but not what extends beyond it.

    Compiled code needs it: Inductor divides gy by the size of the kernel everywhere (torch 2.13.0). For windows of 2 on a row of
    5 the last element would get half of its gradient.
    """
    axes = len(kernel)
    count = gy.new_ones((1,) * axes)
    for i, (n, k, s, p) in enumerate(zip(of[0][-axes:], kernel, stride, padding, strict=True)):
        first = torch.arange(gy.shape[i - axes], device=gy.device) * s
        own = (n + 2 * p - first).clamp(max=k).to(gy.dtype)
        count = count * own.reshape([-1 if j == i else 1 for j in range(axes)])
    return count
