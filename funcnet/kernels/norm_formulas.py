"""Formulas of normalization, for someone who differentiates: of torch's backward kernels some have no derivative.

They are not measured: who differentiates a gradient pays for its formula anyway. Statistics are in single at least. Rows are
divided by a bound of their size first, without which squares from 1e19 on would be infinite in single.
"""

import math

import torch
from torch import Tensor

Moments = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Tensor | None, Tensor | None]


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _bound(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the largest magnitude along axes, but at least 1: a number by which the result does not change."""
    return x.detach().abs().amax(axes, keepdim=True).clamp_min(1)


def _of_channels(w: Tensor | None, x: Tensor) -> Tensor | float:
    """Give γ or β the axes of x, whose channels are axis 1; γ is 1 where there is none."""
    return 1.0 if w is None else _wide(w).reshape(1, -1, *[1] * (x.dim() - 2))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = x * _of_channels(weight, x)
    return y if bias is None else y + _of_channels(bias, x)


def _channel_sums(gy: Tensor, normalized: Tensor, like: Tensor | None, mask: list[bool]) -> list[Tensor | None]:
    """Return the gradients of γ and β where ``mask`` wants them: sums over all axes but the channels."""
    axes = [i for i in range(gy.dim()) if i != 1]
    terms = [gy * normalized if mask[0] else None, gy if mask[1] else None]
    return [term if term is None or like is None else term.sum(axes).to(like.dtype) for term in terms]


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize groups of channels: y, x, and for each row and group μ and 1 / √(σ² + ε), which depend on x."""
    z = _wide(x).reshape(x.shape[0], groups, -1)
    size = _bound(z, (2,))
    z = z / size
    mean = z.mean(2, keepdim=True)
    d = z - mean
    r = torch.rsqrt((d * d).mean(2, keepdim=True) + eps / size / size)
    y = _affine((d * r).reshape(x.shape), weight, bias)
    return y.to(x.dtype), x, (mean * size).squeeze(2), (r / size).squeeze(2)


def group_norm_backward(
    gy: Tensor, x: Tensor, groups: int, moments: Moments, weight: Tensor | None, mask: list[bool]
) -> Gradients:
    """Gradients of x, weight and bias: gx = r (g - Σ g / m - x̂ Σ g x̂ / m), with g = γ gy, over the group."""
    mean, r = [_wide(one).unsqueeze(2) for one in moments]
    gy, rows = _wide(gy), (x.shape[0], groups, -1)
    normalized = (_wide(x).reshape(rows) - mean) * r
    g = (gy * _of_channels(weight, x)).reshape(rows)
    gx = r * (g - g.mean(2, keepdim=True) - normalized * (g * normalized).mean(2, keepdim=True))
    gw, gb = _channel_sums(gy, normalized.reshape(x.shape), weight, mask[1:])
    return gx.reshape(x.shape).to(x.dtype), gw, gb


def running_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, running: Moments) -> Tensor:
    """Normalize channels by running moments, on which y depends too."""
    mean, var = [_of_channels(one, x) for one in running]
    return _affine((_wide(x) - mean) * (var + eps) ** -0.5, weight, bias).to(x.dtype)


def running_norm_backward(gy: Tensor, x: Tensor, weight: Tensor | None, eps: float, running: Moments) -> Gradients:
    """Gradients of x, weight and bias: gx = γ r gy."""
    mean, var = [_of_channels(one, x) for one in running]
    r, gy = (var + eps) ** -0.5, _wide(gy)
    gw, gb = _channel_sums(gy, (_wide(x) - mean) * r, weight, [True, True])
    return (gy * r * _of_channels(weight, x)).to(x.dtype), gw, gb


def rms_norm(x: Tensor, axes: tuple[int, ...], weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Divide rows by √(x̄² + ε), and multiply by the weight: y, and the 1 / √(x̄² + ε), which depends on x."""
    size = _bound(_wide(x), axes)
    z = _wide(x) / size
    r = torch.rsqrt((z * z).mean(axes, keepdim=True) + eps / size / size)
    y = z * r if weight is None else z * r * weight
    return y.to(x.dtype), r / size


def rms_norm_backward(
    gy: Tensor, x: Tensor, shape: tuple[int, ...], r: Tensor, weight: Tensor | None, mask: list[bool]
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and weight: gx = r (g - x̂ Σ g x̂ / m), with g = γ gy, over the row."""
    gy, normalized, axes = _wide(gy), _wide(x) * r, tuple(range(-len(shape), 0))
    g = gy if weight is None else gy * weight
    gx = r * (g - normalized * (g * normalized).mean(axes, keepdim=True))
    gw = (gy * normalized).reshape(-1, math.prod(shape)).sum(0).reshape(shape).to(x.dtype) if mask[1] else None
    return gx.to(x.dtype), gw
