"""Kernels of activations. Times are of operands of 100×25."""

from collections.abc import Callable

import torch
from torch import Tensor

_aten = torch.ops.aten
_nn = torch._C._nn

Kernel = Callable[..., Tensor]

# gx of the activations from their output y or input x, in one kernel: tanh 1.5 µs, against 4.6 for gy (1 - y²) in arithmetic.
tanh_backward: Kernel = _aten.tanh_backward.default
sigmoid_backward: Kernel = _aten.sigmoid_backward.default
threshold_backward: Kernel = _aten.threshold_backward.default
leaky_relu: Kernel = _nn.leaky_relu
leaky_relu_backward: Kernel = _aten.leaky_relu_backward.default
softmax_backward: Kernel = _aten._softmax_backward_data.default
log_softmax_backward: Kernel = _aten._log_softmax_backward_data.default

elu: Kernel = _aten.elu.default
elu_backward: Kernel = _aten.elu_backward.default
hardtanh: Kernel = _nn.hardtanh
hardtanh_backward: Kernel = _aten.hardtanh_backward.default
gelu: Kernel = _nn.gelu
gelu_backward: Kernel = _aten.gelu_backward.default
silu: Kernel = _nn.silu
silu_backward: Kernel = _aten.silu_backward.default
