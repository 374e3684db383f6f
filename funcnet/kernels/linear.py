"""Kernels of linear maps, and the choice of the library for matrix products: MKL or oneDNN.

On one core of an AMD EPYC with 512-bit AVX-512 units, in float32, MKL reaches 90 to 110 GFLOP/s and oneDNN 200 to 250, but a call
of oneDNN has more overhead. µs of x wᵀ + b, gyᵀ x and gy w for x (rows, in) and w (out, in):

    rows, in, out        MKL                    oneDNN                  MKL / oneDNN
    100, 25, 25          4      4     3         14     15    12         0.3  0.3  0.3
    64, 128, 128         24     24    23        23     27    21         1.1  0.9  1.1
    32, 128, 512         50     48    49        37     43    32         1.4  1.1  1.5
    64, 400, 128         72     70    70        47     50    42         1.5  1.4  1.7
    256, 256, 256        347    353   343       170    195   161        2.0  1.8  2.1
    4096, 64, 64         392    391   382       182    315   171        2.2  1.2  2.2
    256, 1024, 1024      5923   7019  6102      2732   2908  2848       2.2  2.4  2.1

The units of Zen 4 have 256 bits, and MKL comes as close to their peak of 118 GFLOP/s as oneDNN. µs of all three products together
on an AMD EPYC (Zen 4):

    rows, in, out        MKL     oneDNN   MKL / oneDNN
    32, 128, 512         161     222      0.7
    64, 400, 128         227     284      0.8
    256, 64, 256         296     354      0.8
    64, 1568, 128        838     798      1.1
    256, 784, 1024       12688   11535    1.1

In bfloat16, which these processors multiply twice as fast, ``torch.mm`` calls oneDNN too, and adds the bias in a second pass:

    rows, in, out        torch                  oneDNN
    1024, 256, 256       490   450   348        354   498   326
    1024, 256, 768       1135  1288  1059       941   1324  958
    1024, 1024, 256      1428  1505  1312       1241  1474  1216
    256, 784, 1024       1187  1158  1109       1020  1123  1029

On AMD processors with AVX-512, "auto" therefore uses oneDNN from 2 million multiplications on, or 8 million on Zen 4: in float32,
and in bfloat16 for all but the gradient of the weight. On other processors it uses MKL, which is optimized for Intel. The choice
depends on processor and size, never on a timing, so results are identical from run to run, bit for bit. With a symbolic size, in
a program exported for any batch, torch's product is used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from funcnet.checks import Misfit
from funcnet.errors import value_error
from funcnet.kernels.choices import NEVER, choice, forced, set_choice
from funcnet.kernels.private_names import HAS_ONEDNN, builtin, onednn_linear, onednn_takes_bfloat16
from funcnet.kernels.processor import Processor
from funcnet.kernels.threads import is_one_thread_enough, with_one_mkl_thread
from funcnet.kernels.tracing import is_autocast, is_compiling, is_plain_data, is_untransformed

LIBRARIES = ("auto", "mkl", "onednn")
_linear: Callable[..., Tensor] = builtin("linear")


@cache
def _onednn() -> Callable[..., Tensor] | None:
    """Return oneDNN's product; ``None`` if this build of torch lacks it."""
    product: Callable[..., Tensor] | None = onednn_linear if HAS_ONEDNN else None
    return product


def _options(product: Callable[..., Tensor] | None) -> dict[str, int]:
    """Return the threshold of each library, by name; a build may lack oneDNN's product."""
    return {"mkl": NEVER, "onednn": NEVER if product is None else 0}


def _least_multiplications(cpu: Processor) -> int:
    if cpu.maker != "amd" or not cpu.avx512 or not _onednn():
        return NEVER
    return 2_000_000 if cpu.vp2intersect else 8_000_000


PRODUCTS = choice("matrix products", _options(_onednn()), _least_multiplications, "multiplications")
"""Number of multiplications from which oneDNN computes a product."""


def set_matmul_library(library: str) -> None:
    """Choose the library that computes matrix products in float32, and adds the bias in bfloat16, for the whole process.

    Args:
        library: ``"mkl"``, ``"onednn"``, or ``"auto"`` to choose by processor and size. In a build of torch without oneDNN, all
            products are computed by MKL, or the library that torch uses instead.

    Raises:
        ValueError: For another name.

    >>> set_matmul_library("mkl")
    >>> set_matmul_library("auto")
    """
    _require_library("set_matmul_library", library)
    set_choice(PRODUCTS.name, library)


@contextmanager
def matmul_library(library: str) -> Iterator[None]:
    """Choose the library in a ``with`` block, and restore the previous one at its end; see ``set_matmul_library``.

    Args:
        library: ``"mkl"``, ``"onednn"``, or ``"auto"`` to choose by processor and size.

    Raises:
        ValueError: For another name.

    >>> with matmul_library("mkl"):
    ...     product = torch.ones(2, 3) @ torch.ones(3, 2)
    """
    _require_library("matmul_library", library)
    with forced(PRODUCTS.name, library):
        yield


def _require_library(who: str, library: str) -> None:
    if library not in LIBRARIES:
        rule = f"library must be one of {', '.join(map(repr, LIBRARIES))}"
        raise value_error(who, rule, repr(library))


def _multiplied() -> tuple[torch.dtype, ...]:
    """Return the dtypes that oneDNN multiplies; bfloat16 only if the processor has instructions for it."""
    return (torch.float32, torch.bfloat16) if _onednn() and onednn_takes_bfloat16() else (torch.float32,)


_DTYPES = _multiplied()  # Dynamo cannot call it


def by_onednn() -> bool:
    """Return whether oneDNN computes large products, by the rule for this processor or after ``set_matmul_library``."""
    return PRODUCTS.value < NEVER


def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x wᵀ + b, over the last axis of x.

    Raise ``Misfit`` for operands that torch accepts silently: a tensor in main memory times one on the meta device, whose product
    is uninitialized memory; a nested x, whose product is nested; and a bias of another dtype, which torch casts if x has more
    than two axes or ``vmap`` is active.
    """
    if w.is_cpu is not x.is_cpu or x.is_nested or (b is not None and b.dtype is not w.dtype and not is_autocast()):
        raise Misfit
    count = x.numel() * w.shape[0]  # w.size(0) takes 0.05 µs more
    if type(count) is not int or count < PRODUCTS.value or not _serves(x, w, b) or x.shape[-1] != w.shape[1]:
        return linear_of(count)(x, w, b)
    return _by_onednn(x, w, b)


def is_small(x: Tensor, features: int) -> bool:
    """Return whether ``torch.mm`` computes all products of a linear map from the matrix x to ``features``."""
    return x.dim() == 2 and x.numel() * features < PRODUCTS.value


def _both(gy: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return torch.mm(gy.t(), x), torch.mm(gy, w)


_linear_on_one_thread = with_one_mkl_thread(_linear)
_mm_on_one_thread = with_one_mkl_thread(torch.mm)
_both_on_one_thread = with_one_mkl_thread(_both)


def linear_of(count: int) -> Callable[..., Tensor]:
    """Return torch's x wᵀ + b for ``count`` multiplications."""
    return _linear_on_one_thread if is_one_thread_enough(count) else _linear


def mm_of(count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torch's product of matrices for ``count`` multiplications."""
    return _mm_on_one_thread if is_one_thread_enough(count) else torch.mm


def both_of(count: int) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the function of gy, x and w that computes gyᵀ x and gy w, with ``count`` multiplications each."""
    return _both_on_one_thread if is_one_thread_enough(count) else _both


def matmul_input_grad(gy: Tensor, w: Tensor) -> Tensor:
    """Return gy w, over the last axis of gy."""
    if w.is_cpu is not gy.is_cpu:
        raise Misfit
    count = gy.numel() * w.shape[1]
    if type(count) is not int or count < PRODUCTS.value or not _serves(gy, w) or gy.shape[-1] != w.shape[0]:
        return mm_of(count)(gy, w) if gy.dim() == 2 else torch.matmul(gy, w)
    return _by_onednn(gy, w.t())


def matmul_weight_grad(gy: Tensor, x: Tensor) -> Tensor:
    """Return gyᵀ x, summed over all axes but the last: the gradient of a weight.

    If gy is wide and has many rows, it is faster to compute xᵀ gy with oneDNN and to transpose the result with a copy: 1.5 ms
    instead of 2.6 for 2048 rows of 128 and 512; 3.0 instead of 4.0 for 1024 rows of 256 and 1024. For other sizes it is slower:
    3.3 ms instead of 2.7 for 1024 rows of 1024 and 256.
    """
    if gy.dim() != 2:
        gy, x = gy.reshape(-1, gy.shape[-1]), x.reshape(-1, x.shape[-1])
    count = gy.numel() * x.shape[1]
    if type(count) is not int or count < PRODUCTS.value or not _serves(gy, x) or len(gy) != len(x) or gy.dtype is torch.bfloat16:
        return mm_of(count)(gy.t(), x)
    if gy.shape[1] >= 2 * x.shape[1] and len(x) > x.shape[1]:
        return _by_onednn(x.t().contiguous(), gy.t()).t().contiguous()
    return _by_onednn(gy.t(), x.t())


def linear_vjp(gy: Tensor, x: Tensor, w: Tensor, bias: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return gyᵀ x, Σ gy if there is a bias, and gy w; small products, which are frequent, are checked only once."""
    if w.is_cpu is not gy.is_cpu:
        raise Misfit
    count = gy.numel() * w.shape[1]
    if gy.dim() == 2 and (type(count) is not int or count < PRODUCTS.value):
        gw, gx = both_of(count)(gy, x, w)
        return gw, gy.sum(0) if bias else None, gx
    return matmul_weight_grad(gy, x), sum_of_rows(gy) if bias else None, matmul_input_grad(gy, w)


def sum_of_rows(gy: Tensor) -> Tensor:
    """Sum over all axes but the last: the gradient of a bias."""
    return gy.sum(0) if gy.dim() == 2 else gy.reshape(-1, gy.shape[-1]).sum(0)


def linear_grads(x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a linear map's weight, gyᵀ x, and bias, Σ gy, summed over all axes but the last."""
    return matmul_weight_grad(gy, x), sum_of_rows(gy)


def _serves(x: Tensor, w: Tensor, b: Tensor | None = None) -> bool:
    """Return whether oneDNN's product supports the operands: not empty, plain, of one dtype, the bias as long as the weight."""
    if x.dtype not in _DTYPES or w.dtype is not x.dtype or w.dim() != 2 or x.dim() == 0 or 0 in (*x.shape, *w.shape):
        return False
    return (b is None or (b.dtype is x.dtype and b.shape == w.shape[:1])) and _is_untransformed_data(x, w, b)


def _is_untransformed_data(*tensors: Tensor | None) -> bool:
    """Return whether tensors are not differentiated or, in eager mode, mapped over; compiled code supports mapping."""
    return is_plain_data(*tensors) and (is_compiling() or is_untransformed())


def _by_onednn(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    if is_compiling():
        y: Tensor = torch.ops.funcnet.product(x, w, b)
        return y
    return _product(x, w, b)


def _product(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    product = _onednn()
    assert product is not None  # without oneDNN no size reaches the threshold
    return product(x, w, b, "none", [], "")


# In compiled code the product is a custom operator, which Inductor calls without lowering it. Inductor supports oneDNN's own
# operator only for constant weights. 256×784 times 784×1024 takes 2.1 ms this way, and 4.6 with Inductor's product.
_library = torch.library.Library("funcnet", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("product(Tensor x, Tensor w, Tensor? b) -> Tensor")  # type: ignore[no-untyped-call]
_library.impl("product", _product, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("funcnet::product", lambda x, w, b: x.new_empty((*x.shape[:-1], w.shape[0])), lib=_library)


def _product_mapped(info: Any, dims: tuple[int | None, ...], x: Tensor, w: Tensor, b: Tensor | None) -> tuple[Tensor, int]:
    """Implement ``vmap`` of the product in compiled code: one product if all entries share the weight, else ``matmul``."""
    over_x, over_w, over_b = dims
    x = x.expand(info.batch_size, *x.shape) if over_x is None else x.movedim(over_x, 0)
    if over_w is None and over_b is None:
        y: Tensor = torch.ops.funcnet.product(x, w, b)
        return y, 0
    w = w if over_w is None else w.movedim(over_w, 0)
    y = torch.matmul(x.reshape(len(x), -1, x.shape[-1]), w.mT)
    if b is not None:
        y = y + (b if over_b is None else b.movedim(over_b, 0).unsqueeze(1))
    return y.reshape(*x.shape[:-1], w.shape[-2]), 0


torch.library.register_vmap("funcnet::product", _product_mapped, lib=_library)
