"""The formula of grid sampling, for differentiation: torch's kernels have no derivative in forward mode.

Along each axis a sampling position has taps: the elements that it reads, each with a weight and the derivative of the weight. The
weight of an element is the product of its weights over the axes.

    y = Σ x[taps] Π w        ggrid[a] = Σ gy x[taps] w′[a] Π w, over the other axes        gx = Σ gy Π w, at the taps
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from funcnet.kernels.activation import hardtanh, hardtanh_backward

_A = -0.75  # the parameter of cubic convolution


class _Tap(NamedTuple):
    """An element along one axis for each position: its index, whether it exists, its weight and the weight's derivative."""

    at: Tensor
    inside: Tensor
    weight: Tensor
    slope: Tensor


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """Return y (N, C, *places)."""
    y = x.new_zeros(())
    for taps in itertools.product(*_taps(x, grid, mode, padding, align_corners)):
        y = y + _read(x, taps) * _product([tap.weight for tap in taps]).unsqueeze(1)
    return y.reshape(*x.shape[:2], *grid.shape[1:-1])


def grid_sample_backward(
    gy: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the images and of the positions."""
    axes, gy = _taps(x, grid, mode, padding, align_corners), gy.flatten(2)
    gx, slopes = torch.zeros_like(x).flatten(2), [torch.zeros_like(axis[0].weight) for axis in axes]
    for taps in itertools.product(*axes):
        index, inside = _place(x, taps)
        g = torch.where(inside, gy * _product([tap.weight for tap in taps]).unsqueeze(1), 0.0)
        gx = gx.scatter_add(2, index.expand(gy.shape), g)
        along = (gy * _read(x, taps)).sum(1)
        for i, tap in enumerate(taps):
            others = [other.weight for j, other in enumerate(taps) if j != i]
            slopes[i] = slopes[i] + along * _product([tap.slope, *others])
    return gx.reshape(x.shape), torch.stack(slopes[::-1], -1).reshape(grid.shape)


def _product(factors: list[Tensor]) -> Tensor:
    return math.prod(factors[1:], start=factors[0])


def _place(x: Tensor, taps: tuple[_Tap, ...]) -> tuple[Tensor, Tensor]:
    """Return the index of each position's element in the flattened image, and whether it exists, as (N, 1, positions)."""
    index, inside = torch.zeros_like(taps[0].at), torch.ones_like(taps[0].inside)
    for tap, length in zip(taps, x.shape[2:], strict=True):
        index, inside = index * length + tap.at, inside & tap.inside
    return index.unsqueeze(1), inside.unsqueeze(1)


def _read(x: Tensor, taps: tuple[_Tap, ...]) -> Tensor:
    """Return the elements at the taps, 0 outside, as (N, C, positions)."""
    index, inside = _place(x, taps)
    rows = x.flatten(2)
    return torch.where(inside, rows.gather(2, index.expand(*rows.shape[:2], index.shape[2])), 0.0)


def _taps(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> list[list[_Tap]]:
    """Return the taps along each axis of x; the grid starts with the last axis."""
    coordinates = reversed(grid.flatten(1, -2).unbind(-1))
    return [_of_axis(g, n, mode, padding, align_corners) for g, n in zip(coordinates, x.shape[2:], strict=True)]


def _of_axis(g: Tensor, n: int, mode: str, padding: str, align_corners: bool) -> list[_Tap]:
    scale = (n - 1) / 2 if align_corners else n / 2
    u = (g + 1) * scale - (0.0 if align_corners else 0.5)
    if mode == "bicubic":
        first = torch.floor(u)
        columns = zip(*_cubic(u - first), strict=True)
        taps = [(_inside(first + k - 1, n, padding, align_corners)[0], w, s) for k, (w, s) in enumerate(columns)]
    else:
        u, direction = _inside(u, n, padding, align_corners)
        first = torch.floor(u)
        taps = [(first, first + 1 - u, -direction), (first + 1, u - first, direction)]
        if mode == "nearest":
            taps = [(torch.round(u), torch.ones_like(u), torch.zeros_like(u))]
    return [_Tap(at.clamp(0, n - 1).nan_to_num(0.0).long(), (at >= 0) & (at <= n - 1), w, s * scale) for at, w, s in taps]


def _inside(u: Tensor, n: int, padding: str, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return coordinates, moved inside the image if the padding requires that, and their derivatives."""
    slope = torch.ones_like(u)
    if padding == "zeros":
        return u, slope
    if padding == "reflection":
        u, slope = _reflected(u, (0.0, n - 1.0) if align_corners else (-0.5, n - 0.5))
    return hardtanh(u, 0.0, n - 1.0), hardtanh_backward(slope, u, 0.0, n - 1.0)


def _reflected(u: Tensor, ends: tuple[float, float]) -> tuple[Tensor, Tensor]:
    low, span = ends[0], ends[1] - ends[0]
    if not span:
        return torch.zeros_like(u), torch.zeros_like(u)
    back = u < low
    size = torch.where(back, low - u, u - low)
    odd = torch.floor(size / span) % 2 == 1
    rest = torch.fmod(size, span)
    sign = torch.where(back, -1.0, 1.0).to(u.dtype)
    return torch.where(odd, span - rest, rest) + low, torch.where(odd, -sign, sign)


def _cubic(t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights of the 4 surrounding elements, and their derivatives, for a position t after the second."""
    near = [(_near(d), sign * _near_slope(d)) for d, sign in ((t, 1), (1 - t, -1))]
    far = [(_far(d), sign * _far_slope(d)) for d, sign in ((t + 1, 1), (2 - t, -1))]
    weights, slopes = zip(far[0], *near, far[1], strict=True)
    return list(weights), list(slopes)


def _near(d: Tensor) -> Tensor:
    return ((_A + 2) * d - (_A + 3)) * d * d + 1


def _near_slope(d: Tensor) -> Tensor:
    return (3 * (_A + 2) * d - 2 * (_A + 3)) * d


def _far(d: Tensor) -> Tensor:
    return ((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A


def _far_slope(d: Tensor) -> Tensor:
    return (3 * _A * d - 10 * _A) * d + 8 * _A
