"""Kernels of batch norm over the batches of several processes, without the two collectives, which the layer calls.

Moments are in float64 throughout: all processes must send the same dtype, whatever their batches contain, and m σ² of numbers
from 1e19 on overflows float32.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcnet.kernels.batch_norm import batch_norm, batch_norm_backward
from funcnet.kernels.extremes import in_double, is_far
from funcnet.kernels.norm import Moments
from funcnet.kernels.tracing import can_look_at
from funcnet.precision import HALF, in_single, rounded

_update_stats: Callable[..., Moments] = torch.batch_norm_update_stats


def channel_moments(x: Tensor) -> Moments:
    """Return μ and σ² of each channel in float64; both are 0 for an empty batch.

    In main memory ``batch_norm_update_stats`` takes 6 µs for 256×128 and 575 for 64×32×16×16, ``torch.var_mean`` 157 and 2280.
    Torch's kernels of synchronized batch norm do not support the CPU.
    """
    if x.numel() == 0:
        return x.new_zeros(x.shape[1], dtype=torch.float64), x.new_zeros(x.shape[1], dtype=torch.float64)
    mean, var = _moments(in_single(x))
    if is_far(torch.rsqrt(var)):
        mean, var = _moments(x.double())
    return mean.double(), var.double()


def _moments(x: Tensor) -> Moments:
    if can_look_at(x):
        return _update_stats(x, None, None, 0.0)
    var, mean = torch.var_mean(x, [i for i in range(x.dim()) if i != 1], correction=0)
    return mean, var


def merged(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return m, μ and σ² of all batches together, from those of each batch, which are rows; 0 without values.

        m = Σ mᵢ    μ = Σ mᵢ μᵢ / m    σ² = Σ mᵢ (σᵢ² + (μᵢ - μ)²) / m

    The formula is from Chan et al. 1979, and avoids the difference of two squares.
    """
    count = counts.sum(0)
    shares = counts / count.clamp_min(1)
    mean = (shares * means).sum(0)
    return count, mean, (shares * (variances + (means - mean).square())).sum(0)


def normalized(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, moments: Moments) -> Tensor:
    """Return y = γ (x - μ) / √(σ² + ε) + β, with moments in float64."""
    if _is_far(x, moments, eps):
        wide, w, b = in_double(x, weight, bias)
        return rounded(batch_norm(wide, w, b, eps, moments)[0], x)  # type: ignore[arg-type]
    return batch_norm(x, weight, bias, eps, _like(moments, x))[0]


def gradient_and_sums(
    gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, moments: Moments
) -> tuple[Tensor, Tensor, Tensor]:
    """Return γ r gy, and Σ gy x̂ and Σ gy over this batch, in the dtype in which gx is computed."""
    gamma = x.new_ones(x.shape[1]) if weight is None else weight  # without a weight the kernel omits the sums
    if _is_far(x, moments, eps):
        gy, x, gamma = in_double(gy, x, gamma)  # type: ignore[assignment]
    elif x.dtype in HALF:
        gy, x, gamma = gy.float(), x.float(), gamma.float()
    return batch_norm_backward(gy, x, gamma, eps, running=_like(moments, x))


def input_gradient(
    g: Tensor, x: Tensor, weight: Tensor | None, eps: float, moments: Moments, count: Tensor, sums: Sequence[Tensor]
) -> Tensor:
    """Return gx = γ r (gy - Σ gy / m - x̂ Σ gy x̂ / m) from g = γ r gy and the sums over all batches, Σ gy x̂ and Σ gy.

    The subtracted part is a batch norm of x with other weights, so one more kernel computes it.
    """
    scale = -torch.rsqrt(moments[1] + eps) / count.clamp_min(1)
    if weight is not None:
        scale = scale * weight.double()
    w, b = [(scale * one).to(g.dtype) for one in sums]
    rest = batch_norm(x.to(g.dtype), w, b, eps, _like(moments, g))[0]
    return rounded(g + rest, x)


def _is_far(x: Tensor, moments: Moments, eps: float) -> bool:
    return x.dtype is not torch.float64 and is_far(torch.rsqrt(moments[1] + eps).float())


def _like(moments: Moments, x: Tensor) -> Moments:
    """Return moments in the dtype of x, or in float32 for half precision."""
    dtype = torch.float32 if x.dtype in HALF else x.dtype
    return moments[0].to(dtype), moments[1].to(dtype)
