"""Kernels of pooling, along as many axes as there are numbers in ``kernel``, with or without a batch."""

import functools
import itertools
import math

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
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
MAXIMA = choice("max pooling", {"torch": NEVER, "slices": 0}, lambda cpu: 16384, "elements")
"""From how many elements of x on the maxima of windows side by side are taken by slices; see ``tiles_pay``."""

MEANS = choice("mean pooling", {"torch": NEVER, "slices": 0}, lambda cpu: 16384, "elements")
"""From how many elements of x on the means of windows side by side are taken by slices; see ``_mean_tiles``."""

_threshold_backward: Kernel = _aten.threshold_backward.default
_hardtanh_backward: Kernel = _aten.hardtanh_backward.default


def max_pool(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], ceil: bool
) -> tuple[Tensor, Tensor]:
    """Largest element of each window, and its index in x's flattened axes: of equal ones the first."""
    axes = len(kernel)
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), as_two(dilation, 1), ceil)
    y, indices = _max_pool[max(axes, 2)](lifted(x, axes), *how)
    return lowered(y, axes, x.dim()), lowered(indices, axes, x.dim())


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
    """Gradient of x: gy at each index; where windows overlap, sums of half precision are in single."""
    axes = len(kernel)
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), as_two(dilation, 1), ceil)
    wide = in_single(gy) if gy.dtype in HALF and (_overlap(kernel, stride) or max(dilation) > 1) else gy
    gx = _max_pool_backward[max(axes, 2)](lifted(wide, axes), blank(wide, of, axes), *how, lifted(indices, axes))
    return rounded(lowered(gx, axes, gy.dim()), gy)


def _overlap(kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    return any([s < k for s, k in zip(stride, kernel, strict=True)])  # noqa: C419


def tiles_pay(x: Tensor, kernel: tuple[int, ...], most: int = 4) -> bool:
    """Tell whether ``tile_max`` serves windows side by side better than ``max_pool``: where x is large and not channels_last.

    In ms, forward and backward together, x normal with its negative half 0 (torch's loop is as slow as its branches are hard
    to predict): 2×2 on 64×16×28×28 3.6 by torch and 0.94 by tiles, forward alone 3.3 and 0.18; on 64×32×10×10 2.0 and 0.50,
    1.7 and 0.07; 2 of a row on the first 4.3 and 0.78. In channels_last torch takes 0.54 and 0.18 for the two, tiles 1.8 and
    0.8. For 9 elements on 64×32×10×10 1.2 and 1.4, forward alone 0.9 and 0.17; on 16×8×8×8, where calls are all that counts,
    0.020 and 0.069. Masks of bools take four times as long as these of floats. Compiled code and ``vmap`` have torch's own.
    """
    return _pay(x, origin(x, len(kernel)), kernel, most, MAXIMA.value)


def _pay(like: Tensor, of: Origin, kernel: tuple[int, ...], most: int, least: int) -> bool:
    shape, last = of
    size = math.prod(shape)
    large = type(size) is int and size >= least and math.prod(kernel) <= most and (is_plain(like) or is_meta_data(like))
    return large and min([n // k for n, k in zip(shape[-len(kernel) :], kernel, strict=True)]) > 0 and not last


def tile_max(x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Largest element of each window, for windows side by side; what is left over at the ends belongs to none."""
    return _reduced(x, kernel, torch.maximum)


def _reduced(x: Tensor, kernel: tuple[int, ...], f: Kernel) -> Tensor:
    """Reduce tiles, along one axis after the other."""
    for axis, k in enumerate(kernel, start=x.dim() - len(kernel)):
        x = functools.reduce(f, _strided(x, axis, k))
    return x


def _strided(x: Tensor, axis: int, k: int) -> list[Tensor]:
    whole = x.narrow(axis, 0, x.shape[axis] // k * k)
    at = (slice(None),) * axis
    return [whole[(*at, slice(i, None, k))] for i in range(k)]


def _tiles(x: Tensor, kernel: tuple[int, ...]) -> list[Tensor]:
    """Return the first elements of all windows, the second ones, and so on, in the order of x."""
    parts = [x]
    for axis, k in enumerate(kernel, start=x.dim() - len(kernel)):
        parts = list(itertools.chain.from_iterable([_strided(part, axis, k) for part in parts]))
    return parts


def tile_max_backward(gy: Tensor, x: Tensor, y: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Gradient of x: gy at the first element that equals y; where y is NaN, at the last NaN of the window.

    Masks are 1 and 0 as numbers, and what they select is selected, not multiplied, so that an infinite gy leaves no NaN. NaNs
    are left to torch's own; that there is none the sum of y tells, of 64×16×14×14 in 8 µs of the 0.75 ms.
    """
    axes = len(kernel)
    if not is_plain(gy, x) or math.isnan(y.sum()):  # x and y were kept by eager code
        how = (kernel, kernel, (0,) * axes, (1,) * axes, False)
        return max_pool_backward(gy, max_pool(x, *how)[1], origin(x, axes), *how)
    gx = _to_fill(x, tuple(x.shape), kernel)
    *parts, last = zip(_tiles(x, kernel), _tiles(gx, kernel), strict=True)
    for part, gpart in parts:
        mask = part.clone(memory_format=torch.contiguous_format).eq_(y)
        gpart.copy_(_threshold_backward(gy, mask, 0.5))
        gy = _hardtanh_backward(gy, mask, -1.0, 0.5)
    last[1].copy_(gy)
    return gx


def _to_fill(like: Tensor, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Tensor:
    """Return memory for the gradient of x, with zeros where what is left over at the ends needs them."""
    rest = any([n % k for n, k in zip(shape[-len(kernel) :], kernel, strict=True)])  # noqa: C419
    return like.new_zeros(shape) if rest else like.new_empty(shape)


def _mean_tiles(
    like: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil: bool
) -> bool:
    """Tell whether strided slices serve a mean better than torch's loop: on large tiles, in a precision that adds up as it is.

    In ms, forward and backward: 2×2 on 64×16×28×28 3.4 and 4.8 by torch, 0.4 and 0.9 by slices; on 64×32×10×10 1.1 and 0.94,
    0.07 and 0.10; 2×4 on 64×64×8×8 0.88 and 1.0, 0.11 and 0.16; on 16×16×8×8 0.018 and 0.019, 0.029 and 0.044. In channels_last
    torch takes 0.45 and 0.42 for the first.
    """
    plain = stride == kernel and not ceil and not any(padding) and like.dtype in (torch.float32, torch.float64)
    return plain and _pay(like, of, kernel, 9, MEANS.value)


def avg_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil: bool,
    count_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Mean of each window, or its sum over ``divisor``; half precision along three axes by way of single, as torch has none."""
    axes = len(kernel)
    if _mean_tiles(x, origin(x, axes), kernel, stride, padding, ceil):
        return _reduced(x, kernel, torch.add) / (divisor or math.prod(kernel))
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
    """Gradient of x: each gy over its divisor, to all of its window."""
    axes = len(kernel)
    if _mean_tiles(gy, of, kernel, stride, padding, ceil):
        gx, g = _to_fill(gy, of[0], kernel), gy / (divisor or math.prod(kernel))
        for part in _tiles(gx, kernel):
            part.copy_(g)
        return gx
    wide = in_single(gy) if gy.dtype in HALF and (axes == 3 or _overlap(kernel, stride)) else gy
    if is_compiling() and count_pad and divisor is None and _overhangs(gy, of, kernel, stride, padding):
        wide, divisor = wide / _counts(gy, of, kernel, stride, padding), 1
    how = (as_two(kernel, 1), as_two(stride, 1), as_two(padding, 0), ceil, count_pad, divisor)
    wider: Tensor = _avg_pool_backward[max(axes, 2)](lifted(wide, axes), blank(wide, of, axes), *how)
    return rounded(lowered(wider, axes, gy.dim()), gy)


def _overhangs(gy: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> bool:
    """Tell whether the last window along some axis reaches beyond the padding, as it may with ``ceil_mode``."""
    axes = len(kernel)
    rows = zip(gy.shape[-axes:], of[0][-axes:], kernel, stride, padding, strict=True)
    return any([(windows - 1) * s + k > n + 2 * p for windows, n, k, s, p in rows])  # noqa: C419


def _counts(gy: Tensor, of: Origin, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """Return the number of elements in each window, padding included, but not what a last window has beyond the padding.

    For compiled code: Inductor divides gy by the size of the kernel everywhere (torch 2.13.0). For windows of 2 on a row of 5 the
    last element then gets half of its gradient.
    """
    axes = len(kernel)
    count = gy.new_ones((1,) * axes)
    for i, (n, k, s, p) in enumerate(zip(of[0][-axes:], kernel, stride, padding, strict=True)):
        first = torch.arange(gy.shape[i - axes], device=gy.device) * s
        own = (n + 2 * p - first).clamp(max=k).to(gy.dtype)
        count = count * own.reshape([-1 if j == i else 1 for j in range(axes)])
    return count
