"""Formulas of normalization, used under differentiation, since some of torch's backward kernels have no derivative.

    x̂ = (x - μ) r      r = 1 / √(σ² + ε)      gx = r (g - Σ g / m - x̂ Σ g x̂ / m),  g = γ gy

Their speed does not matter: torch differentiates a gradient through its formula anyway. Statistics are in float32 at least. Rows
are first divided by their largest magnitude, since the squares of numbers from 1e19 on are infinite in float32.
"""

import math
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_differentiated
from funcnet.precision import in_single

serve = is_differentiated
"""Return whether a formula replaces a kernel.

Some backward kernels have no derivative, ``vmap`` decomposes others, and those of layer and batch norm return NaN for numbers
from 1e19 on if the statistics cannot be read.
"""

Moments = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Any, Any]


def _bound(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the largest magnitude along axes, at least 1: a divisor of x that does not change the result."""
    return x.detach().abs().amax(axes, keepdim=True).clamp_min(1)


def _of_channels(w: Tensor, x: Tensor) -> Tensor:
    """Reshape w, one number per channel, to broadcast along axis 1 of x."""
    return in_single(w).reshape(1, -1, *[1] * (x.dim() - 2))


def _scaled(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * _of_channels(weight, x)


def _others(x: Tensor) -> tuple[int, ...]:
    """Return all axes except the channels."""
    return tuple(i for i in range(x.dim()) if i != 1)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = _scaled(x, weight)
    return y if bias is None else y + _of_channels(bias, x)


def _channel_sums(gy: Tensor, normalized: Tensor, like: Tensor | None, mask: list[bool]) -> list[Tensor | None]:
    """Return the gradients of γ and β that ``mask`` selects: sums over all axes but the channels."""
    axes = _others(gy)
    terms = [gy * normalized if mask[0] else None, gy if mask[1] else None]
    return [term if term is None or like is None else term.sum(axes).to(like.dtype) for term in terms]


def _standard(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return x̂ = (x - μ) r over axes, μ and r = 1 / √(σ² + ε), which depend on x, in float32 at least."""
    z = in_single(x)
    size = _bound(z, axes)
    z = z / size
    mean = z.mean(axes, keepdim=True)
    d = z - mean
    r = torch.rsqrt((d * d).mean(axes, keepdim=True) + eps / size / size)
    return d * r, mean * size, r / size


def _standard_backward(g: Tensor, normalized: Tensor, r: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return r (g - Σ g / m - x̂ Σ g x̂ / m), the gradient of x."""
    return r * (g - g.mean(axes, keepdim=True) - normalized * (g * normalized).mean(axes, keepdim=True))


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize groups of channels: return y, x, and μ and 1 / √(σ² + ε) of each row and group."""
    normalized, mean, r = _standard(x.reshape(x.shape[0], groups, -1), (2,), eps)
    return _affine(normalized.reshape(x.shape), weight, bias).to(x.dtype), x, mean.squeeze(2), r.squeeze(2)


def group_norm_backward(
    gy: Tensor, x: Tensor, groups: int, moments: Moments, weight: Tensor | None, mask: list[bool]
) -> Gradients:
    """Return the gradients of x, weight and bias."""
    mean, r = [in_single(one).unsqueeze(2) for one in moments]
    gy, rows = in_single(gy), (x.shape[0], groups, -1)
    normalized = (in_single(x).reshape(rows) - mean) * r
    gx = _standard_backward(_scaled(gy, weight).reshape(rows), normalized, r, (2,))
    gw, gb = _channel_sums(gy, normalized.reshape(x.shape), weight, mask[1:])
    return gx.reshape(x.shape).to(x.dtype), gw, gb


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels with the batch's or running moments (μ, σ²), and return y, μ and 1 / √(σ² + ε), all differentiable."""
    if running is None:
        normalized, mean, r = _standard(x, _others(x), eps)
    else:
        mean, r = _of_channels(running[0], x), (_of_channels(running[1], x) + eps) ** -0.5
        normalized = (in_single(x) - mean) * r
    return _affine(normalized, weight, bias).to(x.dtype), mean.reshape(-1), r.reshape(-1)


def batch_norm_backward(
    gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, batch: Moments | None, running: Moments | None
) -> Gradients:
    """Return the gradients of x, weight and bias; with running moments gx = γ r gy."""
    if running is not None:
        batch = running[0], (running[1] + eps) ** -0.5
    assert batch is not None
    mean, r = [_of_channels(one, x) for one in batch]
    gy, normalized = in_single(gy), (in_single(x) - mean) * r
    g = _scaled(gy, weight)
    gx = g * r if running else _standard_backward(g, normalized, r, _others(x))
    gw, gb = _channel_sums(gy, normalized, weight, [True, True])
    return gx.to(x.dtype), gw, gb


def layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize rows of a shape: return y, and the rows' μ and 1 / √(σ² + ε)."""
    y, mean, r = _standard(x, tuple(range(-len(shape), 0)), eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype), mean, r


def layer_norm_backward(
    gy: Tensor, x: Tensor, shape: tuple[int, ...], moments: Moments, weight: Tensor | None, mask: list[bool]
) -> Gradients:
    """Return the gradients of x, weight and bias."""
    gy, normalized = in_single(gy), (in_single(x) - moments[0]) * moments[1]
    gx = _standard_backward(gy if weight is None else gy * weight, normalized, moments[1], tuple(range(-len(shape), 0)))
    gw, gb = [_row_sum(term, shape, x) if wanted else None for term, wanted in zip((gy * normalized, gy), mask[1:], strict=True)]
    return gx.to(x.dtype), gw, gb


def _row_sum(terms: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return terms.reshape(-1, math.prod(shape)).sum(0).reshape(shape).to(like.dtype)


def rms_norm(x: Tensor, axes: tuple[int, ...], weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Divide rows by √(x̄² + ε), and multiply by the weight: return y and 1 / √(x̄² + ε), both differentiable."""
    size = _bound(in_single(x), axes)
    z = in_single(x) / size
    r = torch.rsqrt((z * z).mean(axes, keepdim=True) + eps / size / size)
    y = z * r if weight is None else z * r * weight
    return y.to(x.dtype), r / size


def rms_norm_backward(
    gy: Tensor, x: Tensor, shape: tuple[int, ...], r: Tensor, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Any]:
    """Return the gradients of x and weight: gx = r (g - x̂ Σ g x̂ / m) over the row, with g = γ gy."""
    gy, normalized, axes = in_single(gy), in_single(x) * r, tuple(range(-len(shape), 0))
    g = gy if weight is None else gy * weight
    gx = r * (g - normalized * (g * normalized).mean(axes, keepdim=True))
    return gx.to(x.dtype), _row_sum(gy * normalized, shape, x) if mask[1] else None
