"""Kernels: every ``torch.ops`` name, and every choice between kernels with the figures that made it, in one place.

Times are of one core of an AMD EPYC with AVX-512, torch 2.13.0, 100×25 float32 operands. A kernel that stands here as a bare
name is torch's own; ``_C._nn`` holds the built-in functions behind ``torch.nn.functional``, without its Python.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_aten = torch.ops.aten
_nn = torch._C._nn

Kernel = Callable[..., Tensor]

# y = x wᵀ + b in one call: 4.0 µs.
linear: Kernel = _nn.linear

# gx of the activations from their output y or input x, in one kernel: tanh 1.5 µs, against 4.6 for gy (1 - y²) in arithmetic.
tanh_backward: Kernel = _aten.tanh_backward.default
sigmoid_backward: Kernel = _aten.sigmoid_backward.default
threshold_backward: Kernel = _aten.threshold_backward.default
leaky_relu: Kernel = _nn.leaky_relu
leaky_relu_backward: Kernel = _aten.leaky_relu_backward.default
softmax_backward: Kernel = _aten._softmax_backward_data.default
log_softmax_backward: Kernel = _aten._log_softmax_backward_data.default

native_batch_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm.default
native_batch_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm_backward.default
convolution: Kernel = _aten.convolution.default
convolution_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.convolution_backward.default


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


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum the gradient of a broadcast operand over the axes along which it was repeated."""
    return g if g.shape == shape else g.sum_to_size(shape)
