"""Kernels of resizing, by mode and number of axes. Every mode is linear in x, so the backward pass needs only its shape.

The mode "area" averages windows that cover x, which is adaptive average pooling.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.adaptive_pooling import adaptive_avg_pool, adaptive_avg_pool_backward
from funcnet.kernels.tracing import has_symbolic_sizes
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

_KERNELS: dict[tuple[str, int], tuple[Kernel, Kernel]] = {
    ("nearest", 1): (_aten.upsample_nearest1d.default, _aten.upsample_nearest1d_backward.default),
    ("nearest", 2): (_aten.upsample_nearest2d.default, _aten.upsample_nearest2d_backward.default),
    ("nearest", 3): (_aten.upsample_nearest3d.default, _aten.upsample_nearest3d_backward.default),
    **{("nearest-exact", n): (torchs.nearest_exact[n], torchs.nearest_exact_backward[n]) for n in (1, 2, 3)},
    ("linear", 1): (_aten.upsample_linear1d.default, _aten.upsample_linear1d_backward.default),
    ("bilinear", 2): (_aten.upsample_bilinear2d.default, _aten.upsample_bilinear2d_backward.default),
    ("bicubic", 2): (_aten.upsample_bicubic2d.default, _aten.upsample_bicubic2d_backward.default),
    ("trilinear", 3): (_aten.upsample_trilinear3d.default, _aten.upsample_trilinear3d_backward.default),
}

Scales = tuple[float | None, ...]


def axes_of(mode: str) -> tuple[int, ...]:
    """Return the numbers of axes for which a mode is defined."""
    return (1, 2, 3) if mode == "area" else tuple([n for name, n in _KERNELS if name == mode])


def _options(mode: str, align_corners: bool) -> tuple[bool, ...]:
    return () if mode.startswith("nearest") else (align_corners,)


def resize(x: Tensor, mode: str, size: tuple[int, ...], align_corners: bool, scales: Scales) -> Tensor:
    """Resample x so that its last axes have ``size``; ``scales`` place the samples, or the sizes if ``None``."""
    if mode == "area":
        return adaptive_avg_pool(x, size)
    return _KERNELS[mode, len(size)][0](x, size, *_options(mode, align_corners), *scales)


def resize_backward(
    gy: Tensor, mode: str, size: tuple[int, ...], shape: tuple[int, ...], align_corners: bool, scales: Scales
) -> Tensor:
    """Return the gradient of x: distribute the gradient of each sample over its sources."""
    if mode == "area":
        return adaptive_avg_pool_backward(gy, (shape, False), len(size))
    if has_symbolic_sizes(gy):  # most of these kernels do not support symbolic sizes (torch 2.13.0)
        return _resize_backward_by_axes(gy, mode, shape, align_corners, scales)
    return _KERNELS[mode, len(size)][1](gy, size, shape, *_options(mode, align_corners), *scales)


def _resize_backward_by_axes(gy: Tensor, mode: str, shape: tuple[int, ...], align_corners: bool, scales: Scales) -> Tensor:
    """Compute the gradient along one axis after the other: every mode is a product with one matrix per axis."""
    gx = in_single(gy)
    for axis, scale in enumerate(scales, start=2):
        w = _resizing_matrix(mode, shape[axis], gy.shape[axis], align_corners, scale, len(scales), gx)
        gx = (gx.movedim(axis, -1) @ w.mT).movedim(-1, axis)
    return rounded(gx, gy)


def _resizing_matrix(mode: str, n: int, size: int, align_corners: bool, scale: float | None, axes: int, like: Tensor) -> Tensor:
    """Return the matrix (n, size) that resizes one axis, whose rows are resized unit vectors."""
    units = torch.eye(n, dtype=like.dtype, device=like.device).reshape(n, 1, *[1] * (axes - 1), n)
    sizes, scales = (*[1] * (axes - 1), size), (*[None] * (axes - 1), scale)
    return resize(units, mode, sizes, align_corners, scales).reshape(n, size)


def pixel_shuffle(x: Tensor, r: int) -> Tensor:
    """Move elements from channels to space; torch's kernel returns an empty x with its old shape."""
    *batch, c, h, w = x.shape
    return torch.pixel_shuffle(x, r) if x.numel() else x.reshape(*batch, c // (r * r), h * r, w * r)


def pixel_unshuffle(x: Tensor, r: int) -> Tensor:
    """Move elements from space to channels, also for an empty x."""
    *batch, c, h, w = x.shape
    return torch.pixel_unshuffle(x, r) if x.numel() else x.reshape(*batch, c * r * r, h // r, w // r)
