"""Lengths of vectors along axes.

x (...) can have any axes; y has the axes that are not reduced.
"""

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.kernels.extremes import length
from funcnet.layers.operands.distances import degree, norm_derivative
from funcnet.layers.operands.reductions import Reduction
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class VectorNorm(Reduction):
    """The p-norm of x along the axes ``dim`` (all axes by default); the gradient of a vector of length 0 is 0.

        y  = ‖x‖ₚ
        gx = gy sign x ⊙ (|x| / y)ᵖ⁻¹, and 0 where x or y is 0; for p = ∞ gy sign x / k at the k largest |x|, else 0

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.
        p: Exponent of the norm.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        ``x``, not copied, ``y`` with all axes, and the axes.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.linalg.vector_norm``.

    >>> import torch
    >>> VectorNorm()({}, torch.tensor([3.0, 4.0]))
    tensor(5.)
    """

    p: float = field(default=2.0, validator=degree)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        dims = self.dims(params, x)
        y = length(x, self.p, dims)
        return rounded(self.without_dims(y, dims), x), (x, y, tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        x, y, dims = cache
        shape = tuple([n for i, n in enumerate(y.shape) if self.keepdim or i not in dims])
        g = in_single(check_gy(self, gy, shape, x)).reshape(y.shape)
        return params, rounded(g * norm_derivative(x.to(y.dtype), y, self.p, [*dims]), x)
