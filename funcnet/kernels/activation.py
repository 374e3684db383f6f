"""Kernels of activations. Times are of operands of 100×25."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import linear as products
from funcnet.kernels.extremes import can_look_at
from funcnet.kernels.tracing import is_for_inductor, is_plain, packed

_aten = torch.ops.aten
_nn = torch._C._nn

Kernel = Callable[..., Tensor]

_MANY = 12_000


def tanh(x: Tensor) -> Tensor:
    """Tanh, of many float32 by oneDNN where products go there too.

    Torch's own calls MKL, which on AMD's processors takes 2.3 ns an element; oneDNN 0.4 and 22 µs besides, for a copy in and one
    out. µs for 2500, 12000, 50000 and 250000 elements: 6.6, 29, 115 and 860 by MKL, 23, 26, 43 and 580 by oneDNN. The relative
    error is below 7.2e-8 by oneDNN and 5.9e-8 by MKL.
    """
    if is_for_inductor() and x.dtype is torch.float32:
        return _tanh_in_arithmetic(x)
    if x.numel() < _MANY or x.dtype is not torch.float32 or not products.by_onednn() or not is_plain(x):
        return torch.tanh(x)
    y: Tensor = x.to_mkldnn().tanh().to_dense()
    return y


# P, of degree 4 in z = x², through the Chebyshev points of 0 < z < 0.49.
_P = (-0.333333214, 0.133320902, -0.053758779, 0.020607152, -0.00558926921)


def _tanh_in_arithmetic(x: Tensor) -> Tensor:
    """Tanh for loops that the compiler makes: x + x z P(z), z = x², where |x| < 0.7, else ± (1 - 2 / (1 + exp 2|x|)).

    A compiled step of the 2-25-25-25-2 net, which has three of 2500 elements, takes 54 µs for 59 by what Inductor calls. Its
    relative error is below 1.4e-7. Without the first part, as by Inductor's own ``use_decompose_tanh``, no digit of a y below
    1e-7 would be right.
    """
    z = x * x
    a = z * _P[4]
    for c in _P[3:0:-1]:
        a = (a + c) * z
    # What holds an exponential and is read twice, the compiler puts into memory: so it is read once here, and y by all others.
    far = (1 - 2 / (1 + (2 * x.abs()).exp())) * torch.where(x < 0, -1.0, 1.0)
    return torch.where(z < 0.49, x + x * ((a + _P[0]) * z), far)


# gx of the activations from their output y or input x, in one kernel: tanh 1.5 µs, against 4.6 for gy (1 - y²) in arithmetic.
tanh_backward: Kernel = _aten.tanh_backward.default
sigmoid_backward: Kernel = _aten.sigmoid_backward.default
threshold_backward: Kernel = _aten.threshold_backward.default
leaky_relu: Kernel = _nn.leaky_relu
leaky_relu_backward: Kernel = _aten.leaky_relu_backward.default
softmax_backward: Kernel = torch._softmax_backward_data
threshold: Kernel = _aten.threshold.default
elu: Kernel = _aten.elu.default
elu_backward: Kernel = _aten.elu_backward.default
hardtanh: Kernel = _nn.hardtanh
hardtanh_backward: Kernel = _aten.hardtanh_backward.default
gelu: Kernel = _nn.gelu
gelu_backward: Kernel = _aten.gelu_backward.default
silu: Kernel = _nn.silu
silu_backward: Kernel = _aten.silu_backward.default
mish: Kernel = _aten.mish.default
mish_backward: Kernel = _aten.mish_backward.default
hardswish: Kernel = _nn.hardswish
hardswish_backward: Kernel = _aten.hardswish_backward.default
hardsigmoid: Kernel = _nn.hardsigmoid
hardsigmoid_backward: Kernel = _aten.hardsigmoid_backward.default
softplus: Kernel = _nn.softplus
softplus_backward: Kernel = _aten.softplus_backward.default
softshrink: Kernel = _nn.softshrink
softshrink_backward: Kernel = _aten.softshrink_backward.default
hardshrink_backward: Kernel = _aten.hardshrink_backward.default
prelu_backward: Callable[..., tuple[Tensor, Tensor]] = _aten._prelu_kernel_backward.default

# Of 256×1024, forward 35 µs by the kernel and 93 by halves, backward 114 and 341.
glu: Kernel = _nn.glu
glu_backward: Kernel = _aten.glu_backward.default


def log_softmax_backward(gp: Tensor, logp: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Gp - exp(log p) Σ gp, the sum over ``dim``."""
    return torch._log_softmax_backward_data(packed(gp), packed(logp), dim, dtype)


def log_sigmoid(x: Tensor) -> Tensor:
    """Log σ(x)."""
    return _nn.log_sigmoid(packed(x))


def log_sigmoid_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Gy σ(-x) from x alone: 3.8 µs, and by torch's kernel, which wants a second tensor kept, 2.4.

    Beyond 40, where softplus has the slope 1 without an exponential, σ is 1 to every digit of float64.
    """
    return softplus_backward(gy, -x, 1.0, 40.0)


def shares(x: Tensor, dim: int) -> Tensor:
    """Softmax, and where the largest x is infinite even shares of those that are equal to it.

    A softmax of infinities is NaN, which 0.5 µs tell; where values are hidden, all are computed as differences from the largest.
    """
    if can_look_at(x):
        y = torch.softmax(x, dim)
        if torch.equal(y, y) or not x.numel():
            return y
    elif 0 in x.shape:
        return x
    most = x.detach().amax(dim, keepdim=True)
    return torch.softmax(torch.where(x == most, 0.0, x - most), dim)
