"""Self-gated activations: x times a smooth gate that depends on x; elementwise, for x (...) of any shape.

    y  = x ⊙ f(x)
    gx = gy ⊙ (f(x) + x ⊙ f′(x))

y and gx have the shape of x. ⊙ is the elementwise product. These functions are not monotonic: y does not determine x, and the
cache holds x, or a function of it.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, one_of
from funcnet.kernels import self_gated as kernels
from funcnet.kernels.activation import hardtanh, magnitude
from funcnet.kernels.limits import finite, has_nan
from funcnet.kernels.tracing import may_search
from funcnet.layers.activation.base import Activation
from funcnet.value import frozen


@frozen
class GELU(Activation):
    """Gaussian error linear unit.

        y  = x Φ(x)                                 Φ, φ: distribution function and density of N(0, 1)
        gx = gy ⊙ (Φ(x) + x φ(x))

    With ``approximate="tanh"``, as in GPT-2, Φ(x) ≈ (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³), in y and in gx.

    Args:
        approximate: ``"none"`` for the exact function, ``"tanh"`` for its approximation.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Hendrycks & Gimpel 2016, "Gaussian error linear units", section 2.

    >>> GELU()({}, torch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    """

    approximate: str = field(default="none", validator=one_of("none", "tanh"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.gelu(x, approximate=self.approximate), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.gelu_backward(gy, x, approximate=self.approximate)


@frozen
class SiLU(Activation):
    """Sigmoid linear unit, also called swish.

        y  = x σ(x)                              σ(x) = 1 / (1 + e⁻ˣ)
        gx = gy ⊙ σ(x) (1 + x (1 - σ(x)))

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Elfwing, Uchibe & Doya 2018; Ramachandran, Zoph & Le 2017, "Searching for activation functions".
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.silu(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.silu_backward(gy, x)


@frozen
class Mish(Activation):
    """Mish, x times the tanh of its softplus.

        y  = x t                                 t = tanh(log(1 + eˣ))
        gx = gy ⊙ (t + x σ(x) (1 - t²))          σ(x) = 1 / (1 + e⁻ˣ)

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Misra 2019, "Mish: a self regularized non-monotonic activation function".
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.mish(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.mish_backward(gy, x)


@frozen
class Dish(Activation):
    """A gate close to GELU that needs no exponential.

        y  = x (1 + r) / 2                       r = x / √(1 + x²)
        gx = gy ⊙ (1 + 2 r - r³) / 2

    y is computed as max(0, x) - |x| / (2 s (s + |x|)) with s = √(1 + x²): nothing cancels and nothing overflows.

    Shape:
        x (...) → y (...)

    Cache:
        r.

    References:
        thinc's ``Dish``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if may_search(x):  # looking for NaN takes 0.4 µs for 200 elements, clamping with ``finite`` 1.2
            y, r = self._value(x, x)
            if not has_nan(y):
                return y, r
        return self._value(x, finite(x))

    def _value(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and r, where z is x clamped to finite numbers."""
        s, size = torch.hypot(z, torch.ones_like(z)), magnitude(z)
        return torch.relu(x) - size / s / (s + size) / 2, z / s

    def backward(self, gy: Tensor, r: Tensor) -> Tensor:
        return gy * (0.5 + r - r**3 / 2)


@frozen
class Hardswish(Activation):
    """Piecewise linear approximation of SiLU: x times a hard sigmoid.

        y  = x min(max(0, u), 1)                                                  u = s x + ½, s = slope
        gx = gy ⊙ (u + s x) where 0 < u < 1, gy where u ≥ 1, else 0

    Args:
        slope: The slope s, above 0. The default 1/6 is also that of torch and of thinc's ``HardSwishMobilenet``; thinc's
            ``HardSwish`` uses 0.2.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """

    slope: float = field(default=1 / 6, validator=number(above=0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.slope == 1 / 6:
            return kernels.hardswish(x), x
        return kernels.gate(lambda z: z * hardtanh(self._line(z), 0.0, 1.0), x), x  # clamp has the derivative 1 at its bounds

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        if self.slope == 1 / 6:
            return kernels.hardswish_backward(gy, x)
        u = self._line(x)
        return gy * torch.where(u <= 0, 0.0, torch.where(u >= 1, 1.0, u + self.slope * x))

    def _line(self, x: Tensor) -> Tensor:
        return self.slope * x + 0.5
