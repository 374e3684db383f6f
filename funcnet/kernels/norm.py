"""Kernels of normalization."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import norm_formulas as formulas
from funcnet.kernels.extremes import HALF, LEAST, can_look_at, in_double, is_far
from funcnet.kernels.tracing import is_compiling, is_eager, is_mapped, is_plain_data, is_untransformed, packed

_aten = torch.ops.aten
_softshrink: Callable[[Tensor, float], Tensor] = torch._C._nn.softshrink

# A kernel that has a name in ``torch`` is called by it: 1.2 µs less than by ``torch.ops``.
_batch_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_batch_norm
_batch_norm_functional: Callable[..., tuple[Tensor, ...]] = _aten._native_batch_norm_legit_functional.default
_batch_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_batch_norm_backward.default
_layer_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_layer_norm_backward.default
_group_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_group_norm
_group_norm_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.native_group_norm_backward.default

_layer_norm: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.native_layer_norm

Moments = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Any, Any]
Leaves = Sequence[Tensor | None]


def _singly(kernel: Callable[..., Any], x: Tensor, tensors: Leaves, weight: Tensor | None, beside: Leaves, *more: Any) -> Any:
    """Call ``kernel(*tensors, weight, *beside, *more)`` with tensors like x in half precision, and what is beside them in single.

    With weights in half the kernels of batch and group norm round moments and partial sums: of 64×8×32×32 in bfloat16, 300 from
    0, torch's own gradient of γ is 140 % off, of a group norm 10 %. With all in single it is by a thousandth, in the same
    time; for that there must be a weight. Not all transforms and devices know kernels of two dtypes: there x is in single too.
    """
    gamma = x.new_ones(x.shape[1], dtype=torch.float32) if weight is None else weight
    wide = tensors if x.is_cpu and is_untransformed() else _single(x, tensors)
    return kernel(*wide, *_single(x, [gamma, *beside]), *more)


def _is_wider(r: Tensor, x: Tensor) -> bool:
    """Tell whether the statistics of x had to be computed in float64, so that its gradients must be too."""
    return r.dtype is torch.float64 and x.dtype is not torch.float64


def _single(x: Tensor, leaves: Leaves) -> list[Tensor | None]:
    """Return what has the dtype of x in single, and all else as it is."""
    return [leaf.float() if leaf is not None and leaf.dtype == x.dtype else leaf for leaf in leaves]


def _rounded(x: Tensor, weight: Tensor | None, found: Gradients) -> Gradients:
    """Return gradients in the dtypes of x and of weight and bias; those that there are not as they are."""
    gx, gw, gb = found
    if weight is not None:
        gw, gb = (leaf if leaf is None else leaf.to(weight.dtype) for leaf in (gw, gb))
    return gx if gx is None else gx.to(x.dtype), gw, gb


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels, by the batch's or by running moments (μ, σ²): y, and the batch's μ and 1 / √(σ² + ε).

    These two are in single at least. Of an empty batch, on which torch's kernel raises, μ is 0 and the other 1.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    if (running and formulas.serve(x, *running)) or formulas.serve_under_vmap(x):
        return formulas.batch_norm(x, weight, bias, eps, running)
    x, moments = packed(x), running or (None, None)
    if x.dtype in HALF:
        found = _singly(_batch_norm, x, [x], weight, [bias, *moments], running is None, 0.0, eps)
    else:
        found = _batch_norm(x, weight, bias, *moments, running is None, 0.0, eps)
    if running is None and is_far(found[2]):
        found = _batch_norm(*in_double(x, weight, bias), None, None, True, 0.0, eps)
    return (found[0].to(x.dtype), *found[1:]) if found[0].dtype is not x.dtype else found


def batch_norm_ahead(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments, rate: float
) -> tuple[Tensor, Tensor, Tensor, Moments | None]:
    """Return what ``batch_norm`` does by the batch, and the running moments moved towards it, which its kernel does on the way.

    On copies of them; 20 channels take 2.3 µs more so, and 6.7 by ``moved`` afterwards. ``None`` where the kernel does not serve:
    of an empty batch, in half precision, under ``vmap``, and where someone differentiates.
    """
    mean, var = running
    compiling, alike = is_compiling(), x.dtype is mean.dtype is var.dtype and x.dtype not in HALF
    mapped = is_mapped(x) if compiling else not is_untransformed()
    if mapped or x.numel() == 0 or not alike or not is_plain_data(x, weight, bias, mean, var):
        return *batch_norm(x, weight, bias, eps), None
    if compiling:  # the same kernel on copies: but these the compiler may leave out
        y, mu, r, *ahead = _batch_norm_functional(packed(x), weight, bias, *running, True, rate, eps)
        return y, mu, r, (ahead[0], ahead[1])
    copies = mean.clone(), var.clone()
    y, mu, r = _batch_norm(x, weight, bias, *copies, True, rate, eps)
    if r.dtype is torch.float32 and not r.min().item() > LEAST:
        y, mu, r = batch_norm(x, weight, bias, eps)
    return y, mu, r, copies


def variance(r: Tensor, eps: float) -> Tensor:
    """Return σ², at least 0, from 1 / √(σ² + ε): r⁻² shrunk by ε is one kernel for the difference and its bound."""
    return _softshrink(r**-2, eps)


def moved(running: Moments, batch: Moments, rate: float | Tensor, n: int) -> Moments:
    """Move running (μ, σ²) towards those of a batch of n, whose σ² counts n / (n - 1) times.

    In 3 kernels, for 20 channels, with ``variance`` 6.7 µs; as old + rate (new - old) with the σ² multiplied before, 14.6.
    """
    (old_mean, old), (mean, var), unbiased = running, batch, n / max(n - 1, 1)
    if mean.dtype != old.dtype:  # half precision is moved in float32 and rounded once
        mean, var = moved((old_mean.to(mean.dtype), old.to(var.dtype)), batch, rate, n)
        return mean.to(old_mean.dtype), var.to(old.dtype)
    if isinstance(rate, Tensor):
        rate = rate.to(old.dtype)
        return torch.lerp(old_mean, mean, rate), torch.lerp(old, var * unbiased, rate)
    return torch.lerp(old_mean, mean, rate), torch.add(torch.lerp(old, var, rate), var, alpha=rate * (unbiased - 1))


def batch_norm_backward(
    gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, *, batch: Moments | None = None, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, by the batch's (μ, 1 / √(σ² + ε)) or the running (μ, σ²).

    An empty batch would end the process with torch's kernel, which divides by its size.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    if (running and formulas.serve(gy, x, *running)) or formulas.serve_under_vmap(gy, x):
        return formulas.batch_norm_backward(gy, x, weight, eps, batch, running)
    if batch is not None and _is_wider(batch[1], x):
        g, wide, w = in_double(gy, x, weight)
        return _rounded(x, weight, batch_norm_backward(g, wide, w, eps, batch=batch))  # type: ignore[arg-type]
    if running is not None:  # under vmap the kernel wants both pairs
        batch = running[0], torch.rsqrt(running[1] + eps)
    moments = (*(running or (None, None)), *(batch or (None, None)))
    how = running is None, eps, [True, weight is not None, weight is not None]
    if is_compiling():
        gy, x = packed(gy, x), packed(x)
    if x.dtype in HALF:
        return _rounded(x, weight, _singly(_batch_norm_backward, x, [gy, x], weight, moments, *how))
    return _batch_norm_backward(gy, x, weight, *moments, *how)


def layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize rows of a shape: y, and the rows' μ and 1 / √(σ² + ε), at least in single; of 1024×256 94 µs."""
    if formulas.serve_under_vmap(x):
        return formulas.layer_norm(x, shape, weight, bias, eps)
    wide, *params = _mixed(x, shape, weight, bias) if x.dtype in HALF else (x, weight, bias)
    found = _layer_norm(wide, shape, *params, eps)
    if is_far(found[2]):
        wide, *params = in_double(x, weight, bias)
        found = _layer_norm(wide, shape, *params, eps)
    return (found[0].to(x.dtype), *found[1:]) if wide is not x else found


def _mixed(x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None) -> list[Tensor | None]:
    """Return x in half precision and γ and β in single, with which the kernel keeps μ and 1 / σ in single too.

    In half a row of numbers near 300 in bfloat16 has a μ off by 1. Not all transforms and devices know the kernel of two dtypes.
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
    """Gradients of x, weight and bias, where ``mask`` wants them, by the rows' μ and 1 / √(σ² + ε).

    Of 1024×256 79 µs, gx alone 54, the others alone 36, and these two in arithmetic 125. Those of half precision are summed in
    single: the kernel adds up rows in the dtype of x, by which torch's own bias gradient of 5000 rows in bfloat16 is 60 % off.
    Of 1024×256 in bfloat16 that takes 490 µs where the kernel takes 210, in float16 150 and 160.
    """
    if formulas.serve_under_vmap(gy, x):
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
    """Divide rows by √(x̄² + ε), and multiply by the weight: y, and the 1 / √(x̄² + ε); half precision in single.

    Of 1024×256 66 µs, with the mean of a square 85, with each step in new memory 146; ``torch.rms_norm`` 93, and
    ``_fused_rms_norm``, whose backward the CPU has none of, 640.
    """
    if formulas.serve(x, weight):
        return formulas.rms_norm(x, axes, weight, eps)
    wide, count = x.float() if x.dtype in HALF else x, math.prod([x.shape[axis] for axis in axes])
    r = _inverse_rms(wide, axes, count, eps, None if _is_seen(x) else torch.float64)
    if is_far(r):
        wide = x.double()
        r = _inverse_rms(wide, axes, count, eps, None)
    y = wide * r
    if weight is not None:
        y = y.mul_(weight) if is_eager() else y * weight
    return y if wide is x else y.to(x.dtype), r


def _is_seen(x: Tensor) -> bool:
    """Tell whether r can be looked at, or code is compiled, which float64 makes slower: 25 µs for 20, of 100×20."""
    return can_look_at(x) or is_compiling()


def _inverse_rms(x: Tensor, axes: tuple[int, ...], count: int, eps: float, dtype: torch.dtype | None) -> Tensor:
    """Return 1 / √(x̄² + ε), in the dtype of x, with squares summed in ``dtype``."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=dtype)
    r = norm.pow_(2).div_(count).add_(eps).rsqrt_()
    return r if dtype is None else r.to(x.dtype)


def rms_norm_backward(
    gy: Tensor, x: Tensor, shape: tuple[int, ...], r: Tensor, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, where ``mask`` wants them, from r = 1 / √(x̄² + ε).

    With μ = 0 they are those of ``layer_norm`` but for one term of gx, r times the mean of γ gy, which is added again.
    Of 1024×256 114 µs, in arithmetic 500. The kernel forms r³, which loses digits of rows from 10⁸ on: their r is in float64.
    Under ``vmap`` and on other devices, where no one can look at r, x r serves for x and 1 for r, which takes 610.
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
    """Return the order in memory in which the kernels of groups take x without a copy, where there is one; ``vmap`` knows one."""
    if is_eager() and x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize groups of channels: y, x as the way back needs it, and for each row and group μ and 1 / √(σ² + ε).

    Of 32×64×16×16 in 8 groups 200 µs, in one for each channel 340, which as a batch norm of 1×2048×16×16 takes 1460.
    """
    if x.numel() == 0:
        none = x.new_zeros(x.shape[0], groups)
        return torch.empty_like(x), x, none, none
    if formulas.serve(x, weight):
        return formulas.group_norm(x, groups, weight, bias, eps)
    x = x.contiguous(memory_format=_format(x))
    how = *x.shape[:2], math.prod(x.shape[2:]), groups, eps
    if x.dtype in HALF:
        y, mean, r = _singly(_group_norm, x, [x], weight, [bias], *how)
    else:
        y, mean, r = _group_norm(x, weight, bias, *how)
    if is_far(r):
        y, mean, r = _group_norm(*in_double(x, weight, bias), *how)
    return y if y.dtype is x.dtype else y.to(x.dtype), x, mean, r


def group_norm_backward(
    gy: Tensor, x: Tensor, groups: int, moments: Moments, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, where ``mask`` wants them; all three 210 µs, the last two 60.

    The kernel takes gy to lie in memory as x does, and gives wrong numbers where it does not; and where that is with channels
    last, it ends the process unless it may write all that there is to write (torch 2.13.0 on CPU).
    """
    n, c = x.shape[:2]
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(c), x.new_zeros(c)
    if formulas.serve(gy, x, weight):
        return formulas.group_norm_backward(gy, x, groups, moments, weight, mask)
    if _is_wider(moments[1], x):
        g, wide, w = in_double(gy, x, weight)
        return _rounded(x, weight, group_norm_backward(g, wide, groups, moments, w, mask))  # type: ignore[arg-type]
    order = _format(x)
    if order is torch.channels_last:
        mask = [True, weight is not None, weight is not None]
    gy, x = gy.contiguous(memory_format=order), x.contiguous(memory_format=order)
    how = n, c, math.prod(x.shape[2:]), groups, mask
    if x.dtype in HALF:
        return _rounded(x, weight, _singly(_group_norm_backward_by_weight, x, [gy, x], weight, moments, *how))
    return _group_norm_backward(gy, x, *moments, weight, *how)


def _group_norm_backward_by_weight(gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, *how: Any) -> Gradients:
    return _group_norm_backward(gy, x, mean, r, weight, *how)
