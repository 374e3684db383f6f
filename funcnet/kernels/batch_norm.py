"""Kernels of batch norm, with the statistics of the batch or running ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcnet.checks import Misfit
from funcnet.kernels import norm_formulas as formulas
from funcnet.kernels import private_names as torchs
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.extremes import LEAST, in_double, is_far
from funcnet.kernels.norm import Moments, call_in_single, is_wider, make_contiguous, rounded_gradients
from funcnet.kernels.threads import BATCH_NORMS, are_several, with_one_openmp_thread
from funcnet.kernels.tracing import is_compiling, is_mapped, is_meta_data, is_plain_data, is_untransformed, packed
from funcnet.precision import HALF

_aten = torch.ops.aten
_softshrink: Callable[[Tensor, float], Tensor] = torchs.builtin("softshrink")

Kernel = Callable[..., tuple[Tensor, Tensor, Tensor]]

# Kernels with a name in ``torch`` are called by that name: 1.2 µs less than through ``torch.ops``.
_forward: Kernel = torch.native_batch_norm
_batch_norm_functional: Callable[..., tuple[Tensor, ...]] = torchs.batch_norm_functional
_backward: Kernel = _aten.native_batch_norm_backward.default
_direct_backward: Kernel = torchs.direct(_backward)
_forward_on_one_thread = with_one_openmp_thread(_forward)
_backward_on_one_thread = with_one_openmp_thread(_direct_backward)


def _is_for_one_thread(x: Tensor) -> bool:
    return are_several() and x.dim() == 2 and x.numel() < BATCH_NORMS.value


def forward_of(x: Tensor) -> Kernel:
    """Return the forward kernel for tensors like x."""
    return _forward_on_one_thread if _is_for_one_thread(x) else _forward


def backward_of(x: Tensor) -> Kernel:
    """Return the backward kernel for tensors like x, in eager mode."""
    return _backward_on_one_thread if _is_for_one_thread(x) else _direct_backward


def _batch_norm(x: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return forward_of(x)(x, *rest)


def _batch_norm_backward(gy: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (_backward_on_one_thread if _is_for_one_thread(gy) else _backward)(gy, *rest)


STATISTICS = choice("running statistics", {"formula": NEVER, "kernel": 0}, lambda cpu: 0)
"""Whether the batch norm kernel also updates the running moments; see ``batch_norm_ahead``."""


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels with the batch's or running moments (μ, σ²): return y, and the batch's μ and 1 / √(σ² + ε).

    The latter two are in float32 at least. For an empty batch, which torch's kernel rejects, they are 0 and 1.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    if formulas.serve(x, *(running or ())):
        return formulas.batch_norm(x, weight, bias, eps, running)
    x, (weight, bias, *moments) = packed(x), make_contiguous(weight, bias, *(running or (None, None)))
    if x.dtype in HALF:
        found = call_in_single(_batch_norm, x, [x], weight, [bias, *moments], running is None, 0.0, eps)
    else:
        found = _batch_norm(x, weight, bias, *moments, running is None, 0.0, eps)
    if running is None and is_far(found[2]):
        found = _batch_norm(*in_double(x, weight, bias), None, None, True, 0.0, eps)
    return (found[0].to(x.dtype), *found[1:]) if found[0].dtype is not x.dtype else found


def batch_norm_ahead(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments, rate: float
) -> tuple[Tensor, Tensor, Tensor, Moments | None]:
    """Return the results of ``batch_norm`` with the batch's moments, and the running moments updated by the same kernel.

    The kernel updates copies, which takes 2.3 µs more for 20 channels; ``moved`` afterwards would take 6.7. Return ``None`` if
    the kernel does not support that: for an empty batch, in half precision, under ``vmap``, and under differentiation.
    """
    mean, var = running
    compiling, alike = is_compiling(), x.dtype is mean.dtype is var.dtype and x.dtype not in HALF
    mapped = is_mapped(x) if compiling else not is_untransformed()
    if (
        mapped
        or STATISTICS.value
        or x.numel() == 0
        or not alike
        or not (is_plain_data(x, weight, bias, mean, var) or is_meta_data(x))
    ):
        return *batch_norm(x, weight, bias, eps), None
    if compiling:  # the same kernel on copies, which the compiler may eliminate
        y, mu, r, *ahead = _batch_norm_functional(packed(x), weight, bias, *running, True, rate, eps)
        return y, mu, r, (ahead[0], ahead[1])
    copies = mean.clone(), var.clone()
    y, mu, r = _batch_norm(x, weight, bias, *copies, True, rate, eps)
    if r.dtype is torch.float32 and not r.is_meta and not r.min().item() > LEAST:
        y, mu, r = batch_norm(x, weight, bias, eps)
    return y, mu, r, copies


def serves_unchecked(x: Tensor, weight: Tensor, running: Moments) -> bool:
    """Return whether the two functions below are equivalent to ``batch_norm_ahead`` and ``batch_norm_backward`` in eager mode."""
    dense = weight.is_contiguous() and running[0].is_contiguous() and running[1].is_contiguous()
    return dense and not STATISTICS.value and x.dtype is torch.float32 and running[0].dtype is running[1].dtype is x.dtype


def unchecked_ahead(
    kernel: Kernel, x: Tensor, weight: Tensor, bias: Tensor, eps: float, running: Moments, rate: float
) -> tuple[Tensor, Tensor, Tensor, Moments]:
    """Return the results of ``batch_norm_ahead`` from the kernel of ``forward_of``; raise ``Misfit`` if σ² needs float64."""
    ahead = running[0].clone(), running[1].clone()
    y, mu, r = kernel(x, weight, bias, *ahead, True, rate, eps)
    if not r.min().item() > LEAST:
        raise Misfit
    return y, mu, r, ahead


def unchecked_backward(
    kernel: Kernel, gy: Tensor, x: Tensor, weight: Tensor, eps: float, batch: Moments
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of ``batch_norm_backward`` from the kernel of ``backward_of``."""
    return kernel(gy, x, weight, None, None, *batch, True, eps, _ALL)


_ALL = [True, True, True]


def variance(r: Tensor, eps: float) -> Tensor:
    """Return σ², at least 0, from r = 1 / √(σ² + ε): shrinking r⁻² by ε subtracts and clamps in one kernel."""
    return _softshrink(r**-2, eps)


def moved(running: Moments, batch: Moments, rate: float | Tensor, n: int) -> Moments:
    """Move the running (μ, σ²) towards those of a batch of n, whose σ² is multiplied by n / (n - 1).

    Its 3 kernels and ``variance`` take 6.7 µs for 20 channels; multiplying σ² first, then old + rate (new - old), takes 14.6.
    """
    (old_mean, old), (mean, var), unbiased = running, batch, n / max(n - 1, 1)
    if mean.dtype != old.dtype:  # half precision: compute in float32 and round once
        mean, var = moved((old_mean.to(mean.dtype), old.to(var.dtype)), batch, rate, n)
        return mean.to(old_mean.dtype), var.to(old.dtype)
    if isinstance(rate, Tensor):
        rate = rate.to(old.dtype)
        return torch.lerp(old_mean, mean, rate), torch.lerp(old, var * unbiased, rate)
    return torch.lerp(old_mean, mean, rate), torch.add(torch.lerp(old, var, rate), var, alpha=rate * (unbiased - 1))


def batch_norm_backward(
    gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, *, batch: Moments | None = None, running: Moments | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, with the batch's (μ, 1 / √(σ² + ε)) or the running (μ, σ²).

    Torch's kernel is not called for an empty batch: it divides by the batch size, which ends the process.
    """
    if x.numel() == 0:
        return torch.empty_like(x), x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    if formulas.serve(gy, x, *(running or ())):
        return formulas.batch_norm_backward(gy, x, weight, eps, batch, running)
    if batch is not None and is_wider(batch[1], x):
        g, wide, w = in_double(gy, x, weight)
        return rounded_gradients(x, weight, batch_norm_backward(g, wide, w, eps, batch=batch))  # type: ignore[arg-type]
    if running is not None:  # under vmap the kernel needs both pairs
        batch = running[0], torch.rsqrt(running[1] + eps)
    weight, *moments = make_contiguous(weight, *(running or (None, None)), *(batch or (None, None)))
    how = running is None, eps, [True, weight is not None, weight is not None]
    if is_compiling():
        gy, x = packed(gy, x), packed(x)
    if x.dtype in HALF:
        return rounded_gradients(x, weight, call_in_single(_batch_norm_backward, x, [gy, x], weight, moments, *how))
    return _batch_norm_backward(gy, x, weight, *moments, *how)
