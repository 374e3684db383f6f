"""Kernels of sampling at places: modes and paddings go to them as numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")

_GRID_SAMPLE: tuple[tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]], ...] = (
    (_aten.grid_sampler_2d.default, _aten.grid_sampler_2d_backward.default),
    (_aten.grid_sampler_3d.default, _aten.grid_sampler_3d_backward.default),
)


def _numbers(mode: str, padding: str, align_corners: bool) -> tuple[Any, ...]:
    return MODES.index(mode), PADDINGS.index(padding), align_corners


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """Take from images, or volumes, the values at the places that the grid names."""
    return _GRID_SAMPLE[x.dim() - 4][0](x, grid, *_numbers(mode, padding, align_corners))


def grid_sample_backward(
    gy: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the images and of the places."""
    return _GRID_SAMPLE[x.dim() - 4][1](gy, x, grid, *_numbers(mode, padding, align_corners), [True, True])
