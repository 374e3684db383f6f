"""Softpluses: smooth approximations of ReLU, elementwise, for x (...) of any shape.

y and gx have the shape of x. ⊙ is the elementwise product.
"""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels import activation as kernels
from funcnet.kernels.limits import finite, has_nan
from funcnet.kernels.tracing import may_search
from funcnet.layers.activation.base import Activation
from funcnet.value import frozen


@frozen
class Softplus(Activation):
    """Softplus, the integral of the sigmoid.

        y  = log(1 + eᵝˣ) / β           and y = x where β x > threshold
        gx = gy / (1 + e⁻ᵝˣ)            and gx = gy there

    Args:
        beta: Sharpness β, above 0: for large β, y approaches ReLU.
        threshold: Value of β x, above 0, beyond which y = x.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Dugas et al. 2001, "Incorporating second-order functional knowledge for better option pricing".
    """

    beta: float = field(default=1.0, validator=number(above=0.0))
    threshold: float = field(default=20.0, validator=number(above=0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.softplus(x, self.beta, self.threshold), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.softplus_backward(gy, x, self.beta, self.threshold)


@frozen
class Squareplus(Activation):
    """Algebraic approximation of Softplus, without exponentials.

        y  = (x + s) / 2         s = √(x² + b)
        gx = gy ⊙ y / s

    y is computed as max(0, x) + b / (2 (s + |x|)): nothing cancels and nothing overflows.

    Args:
        b: Width of the bend at 0, above 0.

    Shape:
        x (...) → y (...)

    Cache:
        The derivative y / s.

    References:
        Barron 2021, "Squareplus: a softplus-like algebraic rectifier"; ``jax.nn.squareplus``.
    """

    b: float = field(default=4.0, validator=number(above=0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if may_search(x):  # looking for NaN takes 0.4 µs for 200 elements, clamping twice with ``finite`` 2.4
            y, s = self._value(x, x)
            slope = y / s
            if not has_nan(slope):
                return y, slope
        y, s = self._value(x, finite(x))
        return y, finite(y) / s

    def _value(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and s = √(z² + b), where z is x clamped to finite numbers."""
        s = torch.hypot(z, torch.full_like(z, math.sqrt(self.b)))
        return torch.relu(x) + self.b / 2 / (s + kernels.magnitude(z)), s

    def backward(self, gy: Tensor, slope: Tensor) -> Tensor:
        return gy * slope


@frozen
class SparsePlus(Activation):
    """A parabola between 0 and the identity, which is exactly 0 for x ≤ -1.

        y  = 0 where x ≤ -1, x where x ≥ 1, else (x + 1)² / 4
        gx = gy ⊙ h,  h = min(max(0, (x + 1) / 2), 1)

    Shape:
        x (...) → y (...)

    Cache:
        The derivative h.

    References:
        ``jax.nn.sparse_plus``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = kernels.hardtanh((x + 1) / 2, 0.0, 1.0)
        return torch.where(x >= 1, x, h * h), h

    def backward(self, gy: Tensor, h: Tensor) -> Tensor:
        return gy * h
