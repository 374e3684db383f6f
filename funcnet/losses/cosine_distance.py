"""The distance of two directions, y and t (..., features, ...) along ``dim``, with one term for each pair of vectors.

    CosineDistance   ℓ = 1 - Σ a ⊙ b              a = y / n(y),  b = t / n(t),  n(u) = max(‖u‖, ε)
                     ∂ℓ/∂y = (a cos - b) / n(y)   cos = Σ a ⊙ b, without a cos where ‖y‖ < ε
                     ∂ℓ/∂t                        the same with a and b, y and t exchanged

By the reduction, with c = 1 for "sum" and "none", 1/n for "mean" of n vectors, 1/N for "batch",

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.errors import number, value_error, whole_number
from funcnet.kernels import losses as kernels
from funcnet.layers.operands.distances import CosineSimilarity
from funcnet.losses.loss import Loss, fitting_target, reduction_scale, reductions
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
        That of ``CosineSimilarity``, the cosines, the factor of the reduction, and an empty tensor with the dtype of y.

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
        cosines, kept = self._similarity().apply({}, (in_single(y), in_single(t)))
        terms, c = 1 - cosines, reduction_scale(self.reduction, cosines)
        value = terms if self.reduction == "none" else kernels.weighted_sum(terms, c)
        return rounded(value, y), (kept, cosines, c, y.new_empty(0))

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        return self._gradient(cache, g, 0)

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor:
        return self._gradient(cache, g, 1)

    def weight_of(self, target: Tensor) -> float | Tensor:
        vectors = target.shape[: self.dim] + target.shape[self.dim :][1:]
        return vectors.numel() if self.reduction == "mean" else next(iter(vectors), 1)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor:
        return terms.unsqueeze(self.dim)

    def _gradient(self, cache: Cache, g: Any, of: int) -> Tensor:
        """Return the gradient of y or of the target."""
        kept, cosines, c, like = cache
        scale = c if g is None else (in_single(g) if isinstance(g, Tensor) else g) * c
        gcos = -scale.expand(cosines.shape) if isinstance(scale, Tensor) else cosines.new_full(cosines.shape, -scale)
        gradient: Tensor = self._similarity().vjp({}, kept, gcos)[1][of]
        return rounded(gradient, like)

    def _similarity(self) -> CosineSimilarity:
        return CosineSimilarity(self.dim, self.eps)
