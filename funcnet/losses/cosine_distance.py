"""Cosine distance of y and t (..., features, ...) along the axis ``dim``, with one term for each pair of vectors.

    CosineDistance   ℓ = 1 - Σ a ⊙ b              a = y / n(y),  b = t / n(t),  n(u) = max(‖u‖, ε)
                     ∂ℓ/∂y = (a cos - b) / n(y)   cos = Σ a ⊙ b; without the term a cos where ‖y‖ < ε
                     ∂ℓ/∂t                        the same with a and b, y and t exchanged

The reduction sets c to 1 for "sum" and "none", 1/n for "mean" over n vectors, 1/N for "batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, value_error, whole_number
from funcnet.kernels.extremes import length
from funcnet.losses.loss import Factor, fitting_target, reductions
from funcnet.losses.terms import TermLoss
from funcnet.precision import in_single
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@frozen
class CosineDistance(TermLoss):
    """One minus the cosine of the angle between y and the target: 0 for equal directions, 1 for a right angle, 2 for opposites.

        ℓ     = 1 - cos                       cos = Σ a ⊙ b,  a = y / n(y),  b = t / n(t),  n(u) = max(‖u‖, ε)
        ∂ℓ/∂y = (a cos - b) / n(y)            without the first term where ‖y‖ < ε
        ∂ℓ/∂t = (b cos - a) / n(t)            without the first term where ‖t‖ < ε

    The lengths of the vectors do not matter, which suits embeddings. A vector shorter than ε is divided by ε, which keeps its
    gradient finite. Half precision is computed in float32.

    Args:
        dim: The axis of the features.
        eps: ε, the smallest divisor, in the unit of y.
        reduction: ``"mean"`` over the vectors, ``"sum"``, ``"none"`` for one value per vector, or ``"batch"`` for the sum divided
            by the length of the first axis of the terms.

    Shape:
        y (..., features, ...), target of the same shape → (), or with ``reduction="none"`` the shape without axis ``dim``

    Cache:
        a, n(y), b, n(t) and the cosines, in float32 or wider.

    Raises:
        ValueError: If y has no axis ``dim``, or if ``eps`` is not a finite number above 0.

    References:
        ``optax.cosine_distance``; the lower bound of the lengths is the same as in ``CosineSimilarity``.

    >>> CosineDistance(reduction="none")(Tensor([[2.0, 0.0], [1.0, 1.0]]), Tensor([[5.0, 0.0], [-1.0, 1.0]]))
    tensor([0., 1.])
    """

    dim: int = field(default=-1, validator=whole_number)
    eps: float = field(default=1e-8, validator=number(above=0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        t = fitting_target(self, y, target)
        if not -y.dim() <= self.dim < y.dim():
            raise value_error(self, f"y must have an axis dim={self.dim} of features", y)
        n, m = (length(one, 2, [self.dim], self.eps).clamp_min(self.eps) for one in (in_single(y), in_single(t)))
        a, b = y / n, t / m  # in float32 or wider, like the lengths
        return a, n, b, m, (a * b).sum(self.dim, keepdim=True)

    def loss(self, kept: Kept) -> Tensor:
        return 1 - kept[-1].squeeze(self.dim)

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        a, n, b, _, cosine = kept
        return self._gradient(a, n, b, cosine, g)

    def dloss_dt(self, kept: Kept, g: Factor) -> Tensor:
        a, _, b, m, cosine = kept
        return self._gradient(b, m, a, cosine, g)

    def weight_of(self, target: Tensor) -> float | Tensor:
        vectors = target.shape[: self.dim] + target.shape[self.dim :][1:]
        return vectors.numel() if self.reduction == "mean" else next(iter(vectors), 1)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor:
        return terms.unsqueeze(self.dim)

    def _gradient(self, a: Tensor, n: Tensor, b: Tensor, cosine: Tensor, g: Factor) -> Tensor:
        """Return the gradient of the vectors a n from the gradient of the terms."""
        g = g.unsqueeze(self.dim) if isinstance(g, Tensor) and g.dim() else g
        return (torch.where(n > self.eps, cosine, 0.0) * a - b) / n * g
