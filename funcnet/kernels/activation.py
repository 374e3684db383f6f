"""Kernels of activations. Times are of operands of 100×25."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import linear as products
from funcnet.kernels.tracing import is_compiling, is_for_inductor, is_plain, packed

_aten = torch.ops.aten
_nn = torch._C._nn

Kernel = Callable[..., Tensor]

HALF = (torch.float16, torch.bfloat16)

_gelu_by_tanh: Kernel = functools.partial(_nn.gelu, approximate="tanh")
_gelu_backward: Kernel = _aten.gelu_backward.default
_gelu_by_tanh_backward: Kernel = functools.partial(_gelu_backward, approximate="tanh")
_silu_backward: Kernel = _aten.silu_backward.default
_mish: Kernel = _aten.mish.default
_mish_backward: Kernel = _aten.mish_backward.default

_MANY = 12_000
_SEARCHED = 20_000


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
hardswish_backward: Kernel = _aten.hardswish_backward.default
hardsigmoid: Kernel = _nn.hardsigmoid
hardsigmoid_backward: Kernel = _aten.hardsigmoid_backward.default
softplus: Kernel = _nn.softplus
softplus_backward: Kernel = _aten.softplus_backward.default
softshrink_backward: Kernel = _aten.softshrink_backward.default
hardshrink_backward: Kernel = _aten.hardshrink_backward.default
prelu_backward: Callable[..., tuple[Tensor, Tensor]] = _aten._prelu_kernel_backward.default

_LARGEST = {dtype: torch.finfo(dtype).max for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


def finite(x: Tensor, bound: float | None = None) -> Tensor:
    """Return x within ±``bound``, by default the largest numbers, so that no product of ∞ and 0 makes NaN; NaN stays NaN."""
    bound = _LARGEST.get(x.dtype, math.inf) if bound is None else bound
    return torch.clamp(x, -bound, bound)


def has_nan(y: Tensor) -> bool:
    """Tell whether the sum of y is NaN, as it is if some y is, or if both infinities are in it."""
    return math.isnan((y if y.dim() == 0 else y.sum()).item())


def gate(kernel: Kernel, x: Tensor, searched: int = _SEARCHED) -> Tensor:
    """Return ``kernel(x)``, x times a gate that is 0 at -∞ and 1 at ∞, where kernels make NaN of ∞ and 0.

    Few numbers are bounded below; of at least ``searched`` y is searched for NaN. Of 100 elements SiLU takes 2.4 µs, without the
    bound 1.2; of 10⁶ 300 with the search, 260 without and 340 with the bound. No kernel of torch's has the limits.
    Others are bounded on both sides: the derivatives that someone takes then have their limits too, and the compiler fuses it.
    No finite y is rounded twice, since the bound is a power of 2, and x less the bound is exact.
    """
    if not torch.compiler.is_compiling() and x.numel() < searched and not x.requires_grad:
        return kernel(torch.clamp_min(x, -_LARGEST.get(x.dtype, math.inf)))
    if is_plain(x):
        y = kernel(x)
        if not has_nan(y):
            return y
    z = finite(x, 2.0 ** (math.frexp(_LARGEST.get(x.dtype, 1.0))[1] - 2))
    return kernel(z) + torch.relu(x - z)


def gate_backward(kernel: Kernel, gy: Tensor, x: Tensor, bound: float | None = None) -> Tensor:
    """Return ``kernel(gy, x)``, gy times the derivative of a gate at x, with its limits beyond ``bound``; see ``gate``."""
    if not torch.compiler.is_compiling() and x.numel() >= _SEARCHED and is_plain(gy, x):
        gx = kernel(gy, x)
        if not has_nan(gx):
            return gx
    return kernel(gy, finite(x, bound))


def gelu(x: Tensor, approximate: str) -> Tensor:
    """Return x Φ(x); oneDNN's kernel, which takes 5.8 µs for 100 elements, is NaN at ∞ too."""
    if approximate == "tanh":
        return gate(_gelu_by_tanh, x)
    return gate(_nn.gelu, x, searched=0)


def gelu_backward(gy: Tensor, x: Tensor, approximate: str) -> Tensor:
    """Gy ⊙ the derivative at x; beyond ±1000, where it is 0 or 1, the cube of x might overflow."""
    return gate_backward(_gelu_by_tanh_backward if approximate == "tanh" else _gelu_backward, gy, x, 1000.0)


def silu(x: Tensor) -> Tensor:
    """Return x σ(x)."""
    return gate(_nn.silu, x)


def silu_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Gy ⊙ σ(x) (1 + x (1 - σ(x)))."""
    return gate_backward(_silu_backward, gy, x)


def mish(x: Tensor) -> Tensor:
    """Return x tanh(log(1 + eˣ))."""
    return gate(_mish, x)


def mish_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Gy ⊙ the derivative of ``mish`` at x."""
    return gate_backward(_mish_backward, gy, x)


def hardswish(x: Tensor) -> Tensor:
    """Return x min(max(0, x / 6 + ½), 1)."""
    return gate(_nn.hardswish, x)


def softshrink(x: Tensor, lambd: float) -> Tensor:
    """Return x nearer to 0 by ``lambd``; while tracing in arithmetic, since Inductor's softshrink of NaN is 0 (torch 2.13.0)."""
    if is_compiling():
        return x - torch.clamp(x, -lambd, lambd)
    y: Tensor = _nn.softshrink(x, lambd)
    return y


# Of 256×1024, forward 35 µs by the kernel and 93 by halves, backward 114 and 341.
glu: Kernel = _nn.glu
glu_backward: Kernel = _aten.glu_backward.default


def settled(x: Tensor, dim: int) -> Tensor:
    """Return x in which 0 and -∞ replace rows whose largest number is infinite: 0 where it is, so that they share equally.

    Of one ∞ that is the limit of softmax and of its logarithm, for which the kernels give NaN.
    """
    if not x.numel():
        return x
    top = x.amax(dim, keepdim=True)
    return torch.where(top.isinf(), torch.zeros_like(x).masked_fill(x != top, -math.inf), x)


def softmax(x: Tensor, dim: int) -> Tensor:
    """Softmax; what has come out is searched for NaN, and with it computed again from ``settled`` numbers.

    Of 10×10 2.0 µs, and 3.4 with the search; of 10⁵×10 12.4 ms, and the search 50 µs.
    """
    if is_plain(x):
        y = torch.softmax(x, dim)
        if not has_nan(y):
            return y
    return torch.softmax(settled(x, dim), dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return the logarithm of ``softmax``."""
    if is_plain(x):
        y = torch.log_softmax(x, dim)
        if not has_nan(y):
            return y
    return torch.log_softmax(settled(x, dim), dim)


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
