"""Scaling of vectors: to length 1, or to mean 0 and variance 1, along an axis and without params."""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, require_axis, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import number, whole_number
from funcnet.kernels.extremes import for_squares, is_far, length
from funcnet.layers.operands.distances import degree, norm_derivative
from funcnet.layers.operands.reductions import axes, reduce_empty
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class Normalize(Layer):
    """Divide x by its p-norm along ``dim``, or by ``eps`` if the norm is smaller.

        y  = x / n        n = max(‖x‖ₚ, ε)
        gx = gy / n - (Σ gy y / n) ∂‖x‖ₚ/∂x        without the second term if ‖x‖ₚ < ε

    ``p`` is the first argument, as in torch: ``Normalize(dim=-1)`` gives unit vectors along the last axis.

    Args:
        p: Exponent of the norm.
        dim: The axis of the vectors.
        eps: Lower bound of the divisor.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied, and its norm, in single precision at least.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.nn.functional.normalize``.

    >>> Normalize(dim=-1)({}, torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    p: float = field(default=2.0, validator=degree)
    dim: int = field(default=1, validator=whole_number)
    eps: float = field(default=1e-12, validator=number(above=0.0))

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        dims = self._dims(require_floating(self, params, x))
        norm = length(x, self.p, dims, self.eps)
        return rounded(x / norm.clamp_min(self.eps), x), (x, norm)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        x, norm = cache
        dims, n, gy = self._dims(x), norm.clamp_min(self.eps), check_gy(self, gy, x.shape, x)
        y = x / n
        share = (gy * y).sum(dims, keepdim=True) * (norm >= self.eps)
        derivative = y if self.p == 2 else norm_derivative(x, norm, self.p, dims)
        return params, rounded((gy - share * derivative) / n, x)

    def _dims(self, x: Tensor) -> list[int]:
        return [require_axis(self, x, self.dim)] if x.dim() else []


@frozen
class Standardize(Layer):
    """Shift and scale x to mean 0 and variance 1 along the axes ``dim``, without params.

        y  = (x - μ) r        r = 1 / √(σ² + ε)        μ and σ² along ``dim``
        gx = r (gy - mean(gy) - y mean(gy y))          means along ``dim``

    Args:
        dim: The axis, or a tuple of axes.
        eps: Added to the variance before the square root, to avoid division by 0.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, and r in single precision at least.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``jax.nn.standardize``.

    >>> Standardize()({}, torch.tensor([1.0, 3.0]))
    tensor([-1.0000,  1.0000])
    """

    dim: int | Shape = field(default=-1, validator=axes)
    eps: float = field(default=1e-5, validator=number(above=0.0))

    @property
    def batch_dependent(self) -> bool:
        return 0 in self._named()

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        dims = [require_axis(self, require_floating(self, params, x), d) % max(x.dim(), 1) for d in self._named()]
        if not x.numel():
            return x, (x, reduce_empty(x, dims, 1.0))
        wide = for_squares(x)
        mean, r = self._moments(wide, dims)
        if is_far(r):
            wide = x.double()
            mean, r = self._moments(wide, dims)
        y = rounded((wide - mean) * r, x)
        return y, (y, rounded(r, in_single(x)))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        y, r = cache
        dims: Any = list(self._named())
        g = in_single(check_gy(self, gy, y.shape, y))
        return params, rounded(r * (g - g.mean(dims, keepdim=True) - y * (g * y).mean(dims, keepdim=True)), y)

    def _moments(self, x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
        """Return the mean and 1 / √(σ² + ε)."""
        variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        return mean, torch.rsqrt(variance + self.eps)

    def _named(self) -> Shape:
        return self.dim if isinstance(self.dim, tuple) else (self.dim,)
