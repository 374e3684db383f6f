"""Kernels of grid sampling, whose modes and paddings are numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.shape import grid_formula as formula
from funcnet.kernels.tracing import is_differentiated
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")

_FURTHEST = 1e30  # a coordinate in pixels is finite in float32

_GRID_SAMPLE: tuple[tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]], ...] = (
    (_aten.grid_sampler_2d.default, _aten.grid_sampler_2d_backward.default),
    (_aten.grid_sampler_3d.default, _aten.grid_sampler_3d_backward.default),
)


def _numbers(mode: str, padding: str, align_corners: bool) -> tuple[Any, ...]:
    return MODES.index(mode), PADDINGS.index(padding), align_corners


def _unsafe(x: Tensor, mode: str, padding: str) -> bool:
    """Return whether torch's kernel reads and writes out of bounds for a position that is NaN."""
    return x.dim() == 4 and mode == "bilinear" and padding != "zeros"


def _safe(grid: Tensor, padding: str) -> tuple[Tensor, Tensor]:
    """Return the grid with safe positions, and a mask (N, 1, h, w) of 0, or NaN where a position is NaN.

    Positions beyond ±2 are on the border, whatever the size of the image; infinity has no reflection.
    """
    limit = 2.0 if padding == "border" else _FURTHEST
    near = grid.clamp(-limit, limit)
    known = near if padding == "border" else grid
    return near.nan_to_num(0.0), (known - known).sum(-1).unsqueeze(1)


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """Sample images, or volumes, at the positions in the grid; NaN where a position is NaN."""
    nothing = None
    if _unsafe(x, mode, padding):
        grid, nothing = _safe(grid, padding)
    if is_differentiated(x, grid):
        y = formula.grid_sample(x, grid, mode, padding, align_corners)
    else:
        y = _GRID_SAMPLE[x.dim() - 4][0](x, grid, *_numbers(mode, padding, align_corners))
    return y if nothing is None else y - nothing


def grid_sample_backward(
    gy: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the images and of the positions, summed in float32; a NaN position contributes none."""
    if _unsafe(x, mode, padding):
        grid, nothing = _safe(grid, padding)
        gy = torch.where(nothing == 0, gy, 0.0)
    if is_differentiated(gy, x, grid):
        return formula.grid_sample_backward(gy, x, grid, mode, padding, align_corners)
    how = (*_numbers(mode, padding, align_corners), [True, True])
    gx, ggrid = _GRID_SAMPLE[x.dim() - 4][1](in_single(gy), in_single(x), in_single(grid), *how)
    return rounded(gx, x), rounded(ggrid, grid)
