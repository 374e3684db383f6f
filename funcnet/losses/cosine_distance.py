"""The distance of two directions, y and t (..., features, ...) along ``dim``, with one term for each pair of vectors.

    CosineDistance   ℓ = 1 - Σ a ⊙ b              a = y / n(y),  b = t / n(t),  n(u) = max(‖u‖, ε)
                     ∂ℓ/∂y = (a cos - b) / n(y)   cos = Σ a ⊙ b, without a cos where ‖y‖ < ε
                     ∂ℓ/∂t                        the same with a and b, y and t exchanged

By the reduction, with c = 1 for "sum" and "none", 1/n for "mean" of n vectors, 1/N for "batch",

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.errors import number, value_error, whole_number
from funcnet.kernels import losses as kernels
from funcnet.kernels.extremes import length
from funcnet.losses.loss import Factor, Loss, fitting_target, reduction_scale, reductions
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class CosineDistance(Loss):
    """One minus the cosine of the angle between y and the target: 0 for one direction, 1 for a right angle, 2 for opposites.

        ℓ     = 1 - Σ a ⊙ b               a = y / n(y),  b = t / n(t),  n(u) = max(‖u‖, ε)
        ∂ℓ/∂y = (a Σ a ⊙ b - b) / n(y)    where ‖y‖ < ε without the first term

    The lengths of the vectors do not count: it compares embeddings. The gradient of a vector shorter than ε is that of a division
    by ε, so that it stays finite. Half precision is computed in float32.

    Args:
        dim: The axis of the features.
        eps: ε, in the unit of y.
        reduction: ``"mean"``, over the vectors, ``"sum"``, ``"none"``, a value for each vector, or ``"batch"``, the sum divided
            by the length of the first axis of the terms.

    Shape:
        y (..., features, ...), target of the same shape and dtype; the terms have no axis ``dim``.

    Cache:
        a and b, the lengths, the cosines, the factor of the reduction, and an empty tensor with the dtype of y.

    Raises:
        ValueError: As ``MSE`` does, for a y without the axis ``dim``, and for an ``eps`` that is not a finite number above 0.

    References:
        ``optax.cosine_distance``; with ``CosineSimilarity``'s bound of the lengths.

    >>> CosineDistance(reduction="none")(Tensor([[2.0, 0.0], [1.0, 1.0]]), Tensor([[5.0, 0.0], [-1.0, 1.0]]))
    tensor([0., 1.])
    """

    dim: int = field(default=-1, validator=whole_number)
    eps: float = field(default=1e-8, validator=number(above=0))
    reduction: str = field(default="mean", validator=reductions)

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        t = fitting_target(self, y, target)
        if not -y.dim() <= self.dim < y.dim():
            raise value_error(self, f"y must have an axis {self.dim}, of the features", y)
        lengths = [length(one, 2, [self.dim], self.eps).clamp_min(self.eps) for one in (in_single(y), in_single(t))]
        units = y / lengths[0], t / lengths[1]  # in float32 at least, as the lengths are
        cosine = (units[0] * units[1]).sum(self.dim, keepdim=True)
        terms = 1 - cosine.squeeze(self.dim)
        c = reduction_scale(self.reduction, terms)
        value = terms if self.reduction == "none" else kernels.weighted_sum(terms, c)
        return rounded(value, y), (units, lengths, cosine, c, y.new_empty(0))

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        (a, b), (n, _), cosine, c, like = cache
        return self._gradient(a, b, n, cosine, _times(c, g), like)

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor:
        (a, b), (_, n), cosine, c, like = cache
        return self._gradient(b, a, n, cosine, _times(c, g), like)

    def weight_of(self, target: Tensor) -> float | Tensor:
        vectors = target.shape[: self.dim] + target.shape[self.dim :][1:]
        return vectors.numel() if self.reduction == "mean" else next(iter(vectors), 1)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor:
        return terms.unsqueeze(self.dim)

    def _gradient(self, a: Tensor, b: Tensor, n: Tensor, cosine: Tensor, c: Factor, like: Tensor) -> Tensor:
        """Return the gradient of the vectors a n, from the gradient c of their terms."""
        c = c.unsqueeze(self.dim) if isinstance(c, Tensor) and c.dim() else c
        return rounded((torch.where(n > self.eps, cosine, 0.0) * a - b) / n * c, like)


def _times(c: Factor, g: Any) -> Factor:
    """Return c g, in float32 at least, and c without a g."""
    return c if g is None else (in_single(g) if isinstance(g, Tensor) else g) * c
