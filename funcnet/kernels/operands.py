"""Kernels of arithmetic on operands that broadcast, and of masks."""

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_differentiated, packed

_aten = torch.ops.aten


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum the gradient of a broadcast operand over the axes along which it was repeated."""
    return g if g.dim() == len(shape) and g.shape == shape else g.sum_to_size(shape)


def divisor(y: Tensor, over: Tensor) -> Tensor:
    """Return y, under differentiation with 1 in place of 0: the derivative of a division by 0 is NaN even if masked."""
    return torch.where(y == 0, 1.0, y) if is_differentiated(y, over) else y


def root(x: Tensor, p: float) -> Tensor:
    """Return x to the power 1 / p; under differentiation its derivative at 0 is 0 instead of infinite."""
    if p == 1:
        return x
    return torch.where(x == 0, 0.0, divisor(x, x) ** (1 / p)) if is_differentiated(x) else x ** (1 / p)


def masked_scale(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Return x · scale where ``keep``, else 0: the forward and, since the map is its own transpose, the backward pass of dropout.

    Torch's kernel has no derivative in forward mode.
    """
    if is_differentiated(x):
        return x * keep * scale
    y: Tensor = _aten.native_dropout_backward.default(packed(x), keep, scale)
    return y
