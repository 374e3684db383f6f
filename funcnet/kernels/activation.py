"""Kernels of activations. Times are for operands of 100×25."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.private_names import HAS_ONEDNN, builtin, direct, is_batched
from funcnet.kernels.tracing import is_compiling, is_differentiated, is_eager, is_for_inductor, is_plain, packed

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

TANH = choice(
    "tanh",
    {"torch": NEVER, "onednn": 0},
    lambda cpu: 12_000 if cpu.maker == "amd" and cpu.avx512 and HAS_ONEDNN else NEVER,
    "elements",
)
"""Number of elements from which oneDNN computes tanh in float32."""


def tanh(x: Tensor) -> Tensor:
    """Return tanh; on AMD processors with AVX-512, oneDNN computes it for large float32 tensors.

    Torch's kernel calls MKL, which takes 2.3 ns per element on AMD processors. oneDNN takes 0.4 ns, plus 22 µs to copy the tensor
    in and out. For 2500, 12000, 50000 and 250000 elements MKL takes 6.6, 29, 115 and 860 µs, oneDNN 23, 26, 43 and 580. The
    relative error is below 7.2e-8 with oneDNN and 5.9e-8 with MKL.
    """
    if is_for_inductor() and x.dtype is torch.float32:
        return _tanh_in_arithmetic(x)
    count = x.numel()  # a symbol while a program is exported for any batch
    if type(count) is not int or count < TANH.value or x.dtype is not torch.float32 or not is_plain(x):
        return torch.tanh(x)
    y: Tensor = x.to_mkldnn().tanh().to_dense()
    return y


def is_small_tanh(x: Tensor) -> bool:
    """Return whether ``tanh`` calls torch's kernel for x in eager mode."""
    return x.numel() < TANH.value


# Coefficients of P: degree 4 in z = x², interpolated at the Chebyshev points of 0 < z < 0.49.
_P = (-0.333333214, 0.133320902, -0.053758779, 0.020607152, -0.00558926921)


def _tanh_in_arithmetic(x: Tensor) -> Tensor:
    """Return tanh as a formula for Inductor's loops: x + x z P(z), z = x², where |x| < 0.7, else ± (1 - 2 / (1 + exp 2|x|)).

    A compiled step of the 2-25-25-25-2 net, which computes three tanh of 2500 elements, takes 54 µs, and 59 µs with the function
    that Inductor calls. The relative error is below 1.4e-7. Without the polynomial, as in Inductor's ``use_decompose_tanh``, no
    digit of a y below 1e-7 would be correct.
    """
    z = x * x
    a = z * _P[4]
    for c in _P[3:0:-1]:
        a = (a + c) * z
    # Inductor stores an expression with an exponential if it is read twice. This one is read once; later code reads y.
    far = (1 - 2 / (1 + (2 * x.abs()).exp())) * torch.where(x < 0, -1.0, 1.0)
    return torch.where(z < 0.49, x + x * ((a + _P[0]) * z), far)


# gx of activations from their output y or input x, in one kernel: for tanh it takes 1.5 µs, the formula gy (1 - y²) 4.6.
tanh_backward: Kernel = _aten.tanh_backward.default
sigmoid_backward: Kernel = _aten.sigmoid_backward.default
threshold_backward: Kernel = _aten.threshold_backward.default
# The same, for eager mode only.
eager_tanh_backward: Kernel = direct(tanh_backward)
eager_threshold_backward: Kernel = direct(threshold_backward)
leaky_relu: Kernel = builtin("leaky_relu")
leaky_relu_backward: Kernel = _aten.leaky_relu_backward.default
softmax_backward: Kernel = torchs.softmax_backward
threshold: Kernel = _aten.threshold.default
elu: Kernel = _aten.elu.default
elu_backward: Kernel = _aten.elu_backward.default
hardtanh: Kernel = builtin("hardtanh")
hardtanh_backward: Kernel = _aten.hardtanh_backward.default
_hardsigmoid: Kernel = builtin("hardsigmoid")
softplus: Kernel = builtin("softplus")
_softshrink: Kernel = builtin("softshrink")
softplus_backward: Kernel = _aten.softplus_backward.default
_softshrink_backward: Kernel = _aten.softshrink_backward.default
_hardshrink_backward: Kernel = _aten.hardshrink_backward.default
_hardsigmoid_backward: Kernel = _aten.hardsigmoid_backward.default
_prelu_backward: Callable[..., tuple[Tensor, Tensor]] = torchs.prelu_backward


def positive_part(x: Tensor) -> Tensor:
    """Return max(0, x), with derivative 1 at 0 under differentiation; that of ``clamp`` is 1 up to torch 2.13, then 0."""
    return torch.where(x < 0, 0.0, x) if is_differentiated(x) else torch.clamp_min(x, 0)


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Return x clamped to bounds, with derivative 1 at them under differentiation; that of ``clamp`` is 0 from torch 2.14 on."""
    return torch.where(x < low, low, torch.where(x > high, high, x)) if is_differentiated(x) else torch.clamp(x, low, high)


def softshrink(x: Tensor, lambd: float) -> Tensor:
    """Move x towards 0 by ``lambd``; with a formula while tracing, since Inductor's softshrink of NaN is 0 (torch 2.13.0)."""
    if is_compiling():
        return x - bounded(x, -lambd, lambd)
    return _softshrink(x, lambd)


def softshrink_backward(gy: Tensor, x: Tensor, lambd: float) -> Tensor:
    """Return gy where x is outside ±``lambd``, else 0."""
    return _shrink_backward(_softshrink_backward, gy, x, lambd)


def hardshrink_backward(gy: Tensor, y: Tensor, lambd: float) -> Tensor:
    """Return gy where y is outside ±``lambd``, else 0."""
    return _shrink_backward(_hardshrink_backward, gy, y, lambd)


def _shrink_backward(kernel: Kernel, gy: Tensor, x: Tensor, lambd: float) -> Tensor:
    """Call torch's kernel, or use its formula while tracing: the kernel does not accept symbolic sizes (torch 2.13.0)."""
    if is_compiling():
        return torch.where((x >= -lambd) & (x <= lambd), 0.0, gy)
    return kernel(gy, x, lambd)


# For 256×1024, the forward kernel takes 35 µs and separate operations on the halves 93, backward 114 and 341.
_glu: Kernel = builtin("glu")
_glu_backward: Kernel = _aten.glu_backward.default


def glu(x: Tensor, dim: int) -> Tensor:
    """Return a σ(b), where a and b are the halves of x. The kernel's forward-mode derivative does not support bfloat16."""
    if not is_differentiated(x):
        return _glu(x, dim)
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


def glu_backward(gy: Tensor, x: Tensor, dim: int) -> Tensor:
    """Return gy σ(b) and gy a σ(b) (1 - σ(b)), concatenated."""
    if not is_differentiated(gy, x):
        return _glu_backward(gy, x, dim)
    a, b = x.chunk(2, dim)
    s = torch.sigmoid(b)
    return torch.cat((gy * s, gy * a * s * (1 - s)), dim)


_log_softmax_backward: Kernel = torchs.log_softmax_backward
_log_sigmoid: Kernel = builtin("log_sigmoid")


def log_softmax_backward(gp: Tensor, logp: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return gp - exp(log p) Σ gp, with the sum over ``dim``."""
    return _log_softmax_backward(packed(gp), packed(logp), dim, dtype)


def log_sigmoid(x: Tensor) -> Tensor:
    """Return log σ(x)."""
    return _log_sigmoid(packed(x))


def log_sigmoid_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Return gy σ(-x) from x only, in 3.8 µs; torch's kernel takes 2.4, but needs a second tensor in the cache.

    Above 40 softplus computes no exponential and has derivative 1; σ is 1 in float64 there.
    """
    return softplus_backward(gy, -x, 1.0, 40.0)


def hardsigmoid_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Return gy / 6 where -3 < x < 3, else 0. Torch's kernel multiplies by a float32 1/6 even in float64, an error of 3e-8."""
    if x.dtype is torch.float64 or is_differentiated(gy, x):
        return hardtanh_backward(gy, x, -3.0, 3.0) / 6
    return _hardsigmoid_backward(gy, x)


def hardsigmoid(x: Tensor) -> Tensor:
    """Return x / 6 + 1/2 clamped to 0 and 1; under differentiation x is clamped instead, as in the backward pass."""
    if is_differentiated(x):
        return hardtanh(x, -3.0, 3.0) / 6 + 0.5
    return _hardsigmoid(x)


_SEES_BATCHES = torchs.FOUND["_C._functorch.is_batchedtensor"]


def prelu(x: Tensor, w: Tensor) -> Tensor:
    """Return x where it is positive, else w x, with one w per channel or a single w.

    At x = 0, torch's forward-mode derivative is 1 but its backward kernel uses w. If ``vmap`` maps w but not x, the kernel
    resizes its output and warns.
    """
    if not is_differentiated(x, w) and (is_batched(x) >= is_batched(w) if _SEES_BATCHES else is_eager()):
        return torch.prelu(x, w)
    return torch.where(x > 0, x, of_channels(w, x) * x)


def prelu_backward(gy: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return gx and the terms of gw, for a w with the axes of x. Torch's derivative of its kernel treats 0 as positive."""
    if not is_differentiated(gy, x, w):
        return _prelu_backward(gy, x, w)
    return torch.where(x > 0, gy, w * gy), torch.where(x > 0, 0.0, x * gy)


def of_channels(w: Tensor, x: Tensor) -> Tensor:
    """Reshape w to broadcast along the channels of x: axis 1, or axis 0 if x has no other."""
    return w.reshape([-1 if i == min(1, x.dim() - 1) else 1 for i in range(x.dim())])


def magnitude(x: Tensor) -> Tensor:
    """Return |x|, with derivative -1 at 0 under differentiation; torch's derivative there is 0, which matches neither side."""
    return torch.where(x > 0, x, -x) if is_differentiated(x) else x.abs()
