"""Kernels of layers. Times are of operands of 100×25."""

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

_batch_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm.default
_batch_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm_backward.default
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


def unbroadcast(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum the gradient of a broadcast operand over the axes along which it was repeated."""
    return g if g.shape == shape else g.sum_to_size(shape)


def masked_scale(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """X · scale where ``keep``, else 0: dropout forward and, being its own transpose, backward."""
    y: Tensor = _aten.native_dropout_backward.default(x, keep, scale)
    return y
