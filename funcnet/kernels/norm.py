"""Kernels of normalization by rows and groups, and helpers that batch norm shares."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import norm_formulas as formulas
from funcnet.kernels.extremes import in_double, is_far
from funcnet.kernels.sharding_rules import is_dtensor
from funcnet.kernels.tracing import can_look_at, is_compiling, is_eager, is_untransformed, packed
from funcnet.precision import HALF, in_single

_aten = torch.ops.aten

# Kernels with a name in ``torch`` are called by that name: 1.2 µs less than through ``torch.ops``.
_layer_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_layer_norm_backward.default
_group_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_group_norm
_group_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_group_norm_backward.default

_layer_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_layer_norm

Moments = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Any, Any]
Leaves = Sequence[Tensor | None]


def call_in_single(
    kernel: Callable[..., Any], x: Tensor, tensors: Leaves, weight: Tensor | None, beside: Leaves, *more: Any
) -> Any:
    """Call ``kernel(*tensors, weight, *beside, *more)`` with tensors like x in half precision, and the others in float32.

    With weights in half precision, the kernels of batch and group norm round moments and partial sums: for 64×8×32×32 in bfloat16
    with a mean of 300, torch's gradient of γ is off by 140 %, that of a group norm by 10 %. With weights in float32 it is off by
    0.1 %, in the same time; without a weight, ones are passed. Some transforms and devices do not support kernels with two
    dtypes, and torch's meta function promises moments in half precision (torch 2.13.0): there, and while tracing, x is cast to
    float32 too.
    """
    gamma = x.new_ones(x.shape[1], dtype=torch.float32) if weight is None else weight
    wide = tensors if x.is_cpu and is_untransformed() and not is_compiling() else _single(tensors)
    return kernel(*wide, *_single([gamma, *beside]), *more)


def make_contiguous(*leaves: Tensor | None) -> list[Any]:
    """Return γ, β and moments contiguous, as the kernels of group norm, and of batch norm with running moments, assume."""
    return [None if leaf is None else leaf.contiguous() for leaf in leaves]


def is_wider(r: Tensor, x: Tensor) -> bool:
    """Return whether the statistics of x needed float64; then its gradients do too."""
    return r.dtype is torch.float64 and x.dtype is not torch.float64


def _single(leaves: Leaves) -> list[Tensor | None]:
    return [None if leaf is None else in_single(leaf) for leaf in leaves]


def rounded_gradients(x: Tensor, weight: Tensor | None, found: Gradients) -> Gradients:
    """Return the gradients in the dtypes of x and of the weight; ``None`` stays ``None``."""
    gx, gw, gb = found
    if weight is not None:
        gw, gb = (leaf if leaf is None else leaf.to(weight.dtype) for leaf in (gw, gb))
    return gx if gx is None else gx.to(x.dtype), gw, gb


def layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize rows of a shape: return y, and the rows' μ and 1 / √(σ² + ε), in float32 at least; 94 µs for 1024×256."""
    if formulas.serve(x, weight):
        return formulas.layer_norm(x, shape, weight, bias, eps)
    wide, *params = _mixed(x, shape, weight, bias) if x.dtype in HALF else (x, weight, bias)
    found = _layer_norm(wide, shape, *params, eps)
    if is_far(found[2]):
        wide, *params = in_double(x, weight, bias)
        found = _layer_norm(wide, shape, *params, eps)
    return (found[0].to(x.dtype), *found[1:]) if wide is not x else found


def _mixed(x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None) -> list[Tensor | None]:
    """Return x in half precision and γ and β in float32; the kernel then keeps μ and 1 / σ in float32 too.

    With γ and β in bfloat16, μ of a row of numbers near 300 is off by 1. Some transforms and devices do not support kernels with
    two dtypes.
    """
    gamma = x.new_ones(shape, dtype=torch.float32) if weight is None else weight.float()
    return [x if x.is_cpu and is_untransformed() else x.float(), gamma, None if bias is None else bias.float()]


def layer_norm_backward(
    gy: Tensor,
    x: Tensor,
    shape: tuple[int, ...],
    moments: Moments,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias that ``mask`` selects, from the rows' μ and 1 / √(σ² + ε).

    For 1024×256, all three take 79 µs, gx only 54, and the other two 36, or 125 as formulas. Half precision is summed in float32:
    the kernel sums rows in the dtype of x, and torch's bias gradient for 5000 rows in bfloat16 is off by 60 %. For 1024×256 this
    takes 490 µs instead of 210 in bfloat16, and 150 instead of 160 in float16.
    """
    if formulas.serve(gy, x, weight):
        return formulas.layer_norm_backward(gy, x, shape, moments, weight, mask)
    dtype = moments[1].dtype
    if is_compiling():
        gy, x = packed(gy), packed(x)
    if x.dtype is dtype:
        return _layer_norm_backward(gy, x, shape, *moments, weight, bias, mask)
    if dtype is torch.float32 and not any(mask[1:]):
        wide, w, b = _mixed(x, shape, weight, bias)
        assert wide is not None
        gx, gw, gb = _layer_norm_backward(gy.to(wide.dtype), wide, shape, *moments, w, b, mask)
        return gx if gx is None else gx.to(x.dtype), gw, gb
    g, wide, w, b = (None if leaf is None else leaf.to(dtype) for leaf in (gy, x, weight, bias))
    found = _layer_norm_backward(g, wide, shape, *moments, w, b, mask)
    gx, gw, gb = (leaf.to(x.dtype) if wanted else leaf for leaf, wanted in zip(found, mask, strict=True))
    return gx, gw, gb


def rms_norm(x: Tensor, axes: tuple[int, ...], weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Divide rows by √(x̄² + ε), and multiply by the weight: return y and 1 / √(x̄² + ε); half precision is computed in float32.

    For 1024×256 it takes 66 µs, 85 with the mean of a square, and 146 with each step in new memory. ``torch.rms_norm`` takes 93,
    and ``_fused_rms_norm``, which has no backward on the CPU, 640.
    """
    if formulas.serve(x, weight):
        return formulas.rms_norm(x, axes, weight, eps)
    wide, count = in_single(x), math.prod([x.shape[axis] for axis in axes])
    r = _inverse_rms(wide, axes, count, eps, None if _is_seen(x) else torch.float64)
    if is_far(r):
        wide = x.double()
        r = _inverse_rms(wide, axes, count, eps, None)
    y = wide * r
    if weight is not None:
        y = y.mul_(weight) if is_eager() else y * weight
    return y if wide is x else y.to(x.dtype), r


def _is_seen(x: Tensor) -> bool:
    """Return whether r can be read or code is compiled, where float64 would be slower: 25 µs instead of 20 for 100×20."""
    return can_look_at(x) or is_compiling()


def _inverse_rms(x: Tensor, axes: tuple[int, ...], count: int, eps: float, dtype: torch.dtype | None) -> Tensor:
    """Return 1 / √(x̄² + ε), in the dtype of x, with squares summed in ``dtype``."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=dtype)
    r = norm.pow_(2).div_(count).add_(eps).rsqrt_()
    return r if dtype is None else r.to(x.dtype)


def rms_norm_backward(
    gy: Tensor, x: Tensor, shape: tuple[int, ...], r: Tensor, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and weight that ``mask`` selects, from r = 1 / √(x̄² + ε).

    With μ = 0 they equal those of ``layer_norm`` except for one term of gx, r times the mean of γ gy, which is added back.
    1024×256 take 114 µs, and 500 with the formula. The kernel computes r³, which loses digits for rows from 10⁸ on: their r is in
    float64. Under ``vmap`` and on other devices, where r cannot be read, the kernel gets x r instead of x and 1 instead of r,
    which takes 610.
    """
    if formulas.serve(gy, x, weight):
        return formulas.rms_norm_backward(gy, x, shape, r, weight, mask)
    g, wide, w = (None if leaf is None else leaf.to(r.dtype) for leaf in (packed(gy), packed(x), weight))
    assert g is not None
    assert wide is not None
    scale = None if _is_seen(x) else r
    if scale is not None:
        wide, r = wide * r, torch.ones_like(r)
    gx, gw, _ = _layer_norm_backward(g, wide, shape, torch.zeros_like(r), r, w, None, [*mask, False])
    if mask[0]:
        size, scaled = math.prod(shape), g.flatten(x.dim() - len(shape))
        mean = scaled.mean(-1) if w is None else torch.matmul(scaled, w.flatten()) / size
        gx = gx + mean.reshape(r.shape) * r
        gx = (gx if scale is None else gx * scale).to(x.dtype)
    return gx, gw.to(x.dtype) if mask[1] else gw


def _format(x: Tensor) -> torch.memory_format:
    """Return the memory format in which the kernels of group norm accept x without a copy; ``vmap`` supports only one."""
    if is_eager() and x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize groups of channels: return y, the x for the backward pass, and μ and 1 / √(σ² + ε) of each row and group.

    32×64×16×16 take 200 µs in 8 groups and 340 with one group per channel, which takes 1460 as a batch norm of 1×2048×16×16.
    """
    if x.numel() == 0:
        none = x.new_zeros(x.shape[0], groups)
        return torch.empty_like(x), x, none, none
    if formulas.serve(x, weight):
        return formulas.group_norm(x, groups, weight, bias, eps)
    x = x.contiguous(memory_format=_format(x))
    how = *x.shape[:2], math.prod(x.shape[2:]), groups, eps
    weight, bias = make_contiguous(weight, bias)
    if x.dtype in HALF:
        y, mean, r = call_in_single(_group_norm, x, [x], weight, [bias], *how)
    else:
        y, mean, r = _group_norm(x, weight, bias, *how)
    if is_far(r):
        y, mean, r = _group_norm(*in_double(x, weight, bias), *how)
    return y if y.dtype is x.dtype else y.to(x.dtype), x, mean, r


def group_norm_backward(
    gy: Tensor, x: Tensor, groups: int, moments: Moments, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias that ``mask`` selects; all three take 210 µs, the last two 60.

    The kernel assumes that gy has the memory format of x, and returns wrong numbers otherwise. For channels_last it ends the
    process unless all gradients are requested (torch 2.13.0 on CPU).
    """
    n, c = x.shape[:2]
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(c), x.new_zeros(c)
    if formulas.serve(gy, x, weight) or is_dtensor(x):  # torch has no rule for this kernel, some of whose gradients may be None
        return formulas.group_norm_backward(gy, x, groups, moments, weight, mask)
    if is_wider(moments[1], x):
        g, wide, w = in_double(gy, x, weight)
        return rounded_gradients(x, weight, group_norm_backward(g, wide, groups, moments, w, mask))  # type: ignore[arg-type]
    order = _format(x)
    if order is torch.channels_last:
        mask = [True, weight is not None, weight is not None]
    gy, x = gy.contiguous(memory_format=order), x.contiguous(memory_format=order)
    how = n, c, math.prod(x.shape[2:]), groups, mask
    (weight,) = make_contiguous(weight)
    if x.dtype in HALF:
        return rounded_gradients(x, weight, call_in_single(_group_norm_backward_by_weight, x, [gy, x], weight, moments, *how))
    return _group_norm_backward(gy, x, *moments, weight, *how)


def _group_norm_backward_by_weight(gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, *how: Any) -> Gradients:
    return _group_norm_backward(gy, x, mean, r, weight, *how)
