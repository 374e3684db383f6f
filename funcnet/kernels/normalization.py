"""Kernels of normalization."""

from collections.abc import Callable

import torch
from torch import Tensor

_aten = torch.ops.aten

_batch_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm.default
_batch_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm_backward.default

Moments = tuple[Tensor, Tensor]


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels, by the batch's or by running moments (μ, σ²): y, and the batch's μ and 1 / √(σ² + ε).

    Of an empty batch, on which torch's kernel raises, μ is 0 and the other 1.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    return _batch_norm(x, weight, bias, *(running or (None, None)), running is None, 0.0, eps)


def batch_norm_backward(
    gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, *, batch: Moments | None = None, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, by the batch's (μ, 1 / √(σ² + ε)) or the running (μ, σ²).

    An empty batch would end the process with torch's kernel, which divides by its size.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    if running is not None:  # under vmap the kernel wants both pairs
        batch = running[0], torch.rsqrt(running[1] + eps)
    moments = (*(running or (None, None)), *(batch or (None, None)))
    return _batch_norm_backward(gy, x, weight, *moments, running is None, eps, [True, weight is not None, weight is not None])
