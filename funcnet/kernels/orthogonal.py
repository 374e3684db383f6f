"""Kernels of Muon: matrices made nearly orthogonal with products alone, without a decomposition."""

from collections.abc import Sequence

import torch
from torch import Tensor


def newton_schulz(x: Tensor, coefficients: Sequence[float], eps: float, steps: int) -> Tensor:
    """Return u vᵀ, nearly, for matrices x = u s vᵀ, in the last two axes: every singular value comes near 1.

        x ← x / max(‖x‖, eps)
        x ← a x + (b x xᵀ + c (x xᵀ)²) x          ``steps`` times

    The products have the smaller of both sizes on their outside: a tall matrix goes through as its transpose.
    """
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        x = _refined(x, *coefficients)
    return x.mT if is_tall else x


def _refined(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Return one step. ``addmm`` rounds once where a product and a sum round twice, which bfloat16 shows."""
    gram = x @ x.mT
    if x.dim() == 2:
        return torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return a * x + (b * gram + c * (gram @ gram)) @ x
