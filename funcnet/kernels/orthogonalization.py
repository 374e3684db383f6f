"""Kernels of Muon: orthogonalize matrices approximately, using only products and no decomposition."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_mapped
from funcnet.precision import HALF


def newton_schulz(x: Tensor, coefficients: Sequence[float], eps: float, steps: int) -> Tensor:
    """Return approximately u vᵀ for matrices x = u s vᵀ in the last two axes: every singular value approaches 1.

        x ← x / max(‖x‖, eps)
        x ← a x + (b x xᵀ + c (x xᵀ)²) x          ``steps`` times

    Tall matrices are transposed, so that x xᵀ has the smaller of both sizes.
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
    """Return the result of one step. Kernels that add to a product round once instead of twice, which matters in bfloat16.

    ``vmap`` decomposes those kernels. Half precision is then computed in float32, and rounded where the kernels round.
    """
    if is_mapped(x):
        wide = torch.float32 if x.dtype in HALF else x.dtype
        y = x.to(wide)
        gram = (y @ y.mT).to(x.dtype).to(wide)
        polynomial = (b * gram + c * (gram @ gram)).to(x.dtype).to(wide)
        return (a * y + polynomial @ y).to(x.dtype)
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    gram = x @ x.mT
    return add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
