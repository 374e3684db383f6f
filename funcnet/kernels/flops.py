"""FLOPs of kernels: two for each multiplication and addition in matrix products, convolutions and attention.

Torch's counter has formulas for these too. Its count for the weight gradient of a grouped convolution is too large by a factor of
the number of groups (torch 2.13.0), and it lacks flash attention on the CPU. Formulas that only torch has, or that users register
with ``torch.utils.flop_counter.register_flop_formula``, are used as well.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs

_aten = torch.ops.aten


def _product(a: Tensor, b: Tensor, *others: Any) -> int:
    """Count a matrix, or a batch of matrices, times a matrix or a vector."""
    return 2 * a.numel() * (b.shape[-1] if b.dim() > 1 else 1)


def _added(total: Tensor, a: Tensor, b: Tensor, *others: Any) -> int:
    return _product(a, b)


def _convolution(x: Tensor, w: Tensor, y: Tensor, transposed: bool) -> int:
    """Count one product per weight and position of the window: in y, or for a transposed convolution in x."""
    return 2 * w.numel() * x.shape[0] * math.prod((x if transposed else y).shape[2:])


def _forward(y: Tensor, x: Tensor, w: Tensor, b: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any) -> int:
    return _convolution(x, w, y, transposed)


def _backward(
    gy: Tensor, x: Tensor, w: Tensor, sizes: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *others: Any
) -> int:
    asked: int = sum(others[-1][:2])  # how many of the gradients of x and w are computed
    return asked * _convolution(x, w, gy, transposed)


def _attention(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> int:
    """Count q kᵀ and p v; a causal mask does not reduce the count, since it saves little in the kernel."""
    return 2 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _attention_backward(gy: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any) -> int:
    """Count q kᵀ again, and the gradients of p, v, q and k."""
    return 2 * q[..., 0].numel() * k.shape[-2] * (3 * q.shape[-1] + 2 * v.shape[-1])


_FORMULAS: Mapping[Any, Callable[..., int]] = {
    **dict.fromkeys((_aten.mm, _aten.bmm, _aten.mv, _aten.dot, _aten.vdot), _product),
    **dict.fromkeys((_aten.addmm, _aten.baddbmm, _aten.addmv), _added),
    _aten.convolution_backward: _backward,
    **{
        kernel.overloadpacket: count
        for kernel, count in ((torchs.flash, _attention), (torchs.flash_backward, _attention_backward))
        if kernel is not None
    },
}


def flops_of(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any], result: Any) -> int:
    """Return the FLOPs of a call of a kernel, an overload of an operator; 0 for kernels that compute no products."""
    from torch.utils.flop_counter import flop_registry

    operator = kernel.overloadpacket
    if operator is _aten.convolution:
        return _forward(result, *arguments)
    if operator in _FORMULAS:
        return _FORMULAS[operator](*arguments)
    formula = flop_registry.get(operator)
    return int(formula(*arguments, **options, out_val=result)) if formula else 0
