"""Kernels of pooling to and from indices: unpooling, and fractional pooling over as many axes as there are sizes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_differentiated
from funcnet.kernels.windows import Kernel, channelwise, lifted, lowered
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten


_fractional_max: dict[int, Kernel] = {
    2: channelwise(_aten.fractional_max_pool2d.default),
    3: channelwise(_aten.fractional_max_pool3d.default),
}


def scatter_to_index(x: Tensor, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """Write x at indices into the flattened last axes of zeros; the last of several elements with the same index remains.

    Under differentiation the others are removed first: torch's derivative would give all of them a gradient.
    """
    at, size = x.dim() - len(shape), math.prod(shape)
    index, rows = indices.flatten(at), x.flatten(at)
    zeros = x.new_zeros((*x.shape[:at], size))
    if is_differentiated(x):
        return zeros.scatter_add(-1, index, torch.where(_stays(index, size), rows, 0)).reshape(*x.shape[:at], *shape)
    return zeros.scatter(-1, index, rows).reshape(*x.shape[:at], *shape)


def gather_from_index(gy: Tensor, indices: Tensor, axes: int, *, twice: bool) -> Tensor:
    """Return the gradient of the written elements: gy at each index; if ``twice``, 0 for all but the last with the same index."""
    at = gy.dim() - axes
    index = indices.flatten(at)
    gx = gy.flatten(at).gather(-1, index)
    if twice:
        gx = torch.where(_stays(index, math.prod(gy.shape[at:])), gx, 0)
    return gx.reshape(indices.shape)


def _stays(index: Tensor, size: int) -> Tensor:
    """Return, for each entry of an index into ``size`` positions, whether it is the last with its value."""
    order = torch.arange(index.shape[-1], device=index.device).expand(index.shape)
    return order.new_zeros((*index.shape[:-1], size)).scatter(-1, index, order).gather(-1, index) == order


def sample_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which window positions are computed for x: half precision is too coarse."""
    return torch.promote_types(x.dtype, torch.float32)


def fractional_max_pool(x: Tensor, kernel: tuple[int, ...], places: tuple[int, ...], samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest element of each of ``places`` windows positioned by ``samples``, and its index in x's flattened axes.

    2×2 windows on 64×16×28×28, to 14×14, take 3.4 ms, and 6.5 if windows are gathered along one axis after the other.
    """
    axes = len(kernel)
    wide = lifted(x, axes).to(samples.dtype)
    y, indices = _fractional_max[axes](wide, kernel, places, samples)
    return lowered(y, axes, x.dim()).to(x.dtype), lowered(indices, axes, x.dim())


def fractional_max_pool_backward(gy: Tensor, indices: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the gradient of x: gy at each index. Torch's own kernel supports only two axes on the meta device."""
    at = gy.dim() - len(lengths)
    wide = in_single(gy)
    gx = wide.new_zeros((*gy.shape[:at], math.prod(lengths)))
    return rounded(gx.scatter_add(-1, indices.flatten(at), wide.flatten(at)).reshape(*gy.shape[:at], *lengths), gy)
