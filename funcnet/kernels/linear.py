"""Kernels of linear maps. Times are of operands of 100×25."""

from collections.abc import Callable

import torch
from torch import Tensor

_nn = torch._C._nn

Kernel = Callable[..., Tensor]

# y = x wᵀ + b in one call: 4.0 µs.
linear: Kernel = _nn.linear


def linear_grads(x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a linear map's weight, gyᵀ x, and bias, Σ gy; all axes but the last are rows."""
    if gy.dim() != 2:
        x, gy = x.reshape(-1, x.shape[-1]), gy.reshape(-1, gy.shape[-1])
    return torch.mm(gy.t(), x), gy.sum(0)


def linear_weight_grad(x: Tensor, gy: Tensor) -> Tensor:
    """Gradient of a linear map's weight alone."""
    if gy.dim() != 2:
        x, gy = x.reshape(-1, x.shape[-1]), gy.reshape(-1, gy.shape[-1])
    return torch.mm(gy.t(), x)
