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
    y = x.mT if x.shape[-2] > x.shape[-1] else x
    shape = y.shape
    y = y / torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True).clamp(min=eps)
    y = y.flatten(0, -3) if y.dim() > 2 else y
    for _ in range(steps):
        y = _refined(y, *coefficients)
    y = y.reshape(shape)
    return y.mT if x.shape[-2] > x.shape[-1] else y


def _refined(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Return one step. Kernels that add to a product round once where two operations round twice, which bfloat16 shows."""
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    gram = x @ x.mT
    return add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
