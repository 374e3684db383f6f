"""Self-gated activations: x times a smooth gate that depends on x; elementwise, for x (...) of any shape.

    GELU        y = x Φ(x)          gx = gy ⊙ (Φ(x) + x φ(x))             Φ, φ: distribution function and density of N(0, 1)
                or with Φ(x) ≈ (1 + tanh u) / 2,  u = √(2/π) (x + 0.044715 x³)
    SiLU        y = x σ(x)          gx = gy ⊙ σ(x) (1 + x (1 - σ(x)))     σ(x) = 1 / (1 + e⁻ˣ)
    Mish        y = x t             gx = gy ⊙ (t + x σ(x) (1 - t²))       t = tanh(log(1 + eˣ))
    Dish        y = x (1 + r) / 2   gx = gy ⊙ (1 + 2 r - r³) / 2          r = x / √(1 + x²)
    Hardswish   y = x min(max(0, u), 1)      gx = gy ⊙ (u + s x) where 0 < u < 1, else gy where u ≥ 1, else 0      u = s x + ½

⊙ is the elementwise product. These functions are not monotonic, so y does not determine x: the cache holds x, or r.
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
    """Gaussian error linear unit, x Φ(x); with ``approximate="tanh"``, as GPT-2 has it, Φ by a tanh.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` for an ``approximate`` other than "none" and "tanh", and when ``x`` is not a floating tensor.
    Source   Hendrycks & Gimpel 2016.
    """

    approximate: str = field(default="none", validator=one_of("none", "tanh"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.gelu(x, approximate=self.approximate), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.gelu_backward(gy, x, approximate=self.approximate)


@frozen
class SiLU(Activation):
    """Sigmoid linear unit, also called swish: x / (1 + e⁻ˣ).

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Elfwing, Uchibe & Doya 2018; Ramachandran, Zoph & Le 2017.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.silu(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.silu_backward(gy, x)


@frozen
class Mish(Activation):
    """Smooth gate x tanh(log(1 + eˣ)).

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Misra 2019.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.mish(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.mish_backward(gy, x)


@frozen
class Dish(Activation):
    """Gate without an exponential, x (1 + x / √(1 + x²)) / 2: near to GELU and cheap.

    y is formed as max(0, x) - |x| / (2 s (s + |x|)), s = √(1 + x²), where nothing cancels and nothing overflows.

    Params   none.
    Cache    r = x / √(1 + x²).
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   thinc's ``Dish``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if may_search(x):  # 0.4 µs for 200 elements, and the bounds of ``finite`` 1.2
            y, r = self._value(x, x)
            if not has_nan(y):
                return y, r
        return self._value(x, finite(x))

    def _value(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and r, z being x within its bounds."""
        s, size = torch.hypot(z, torch.ones_like(z)), magnitude(z)
        return torch.relu(x) - size / s / (s + size) / 2, z / s

    def backward(self, gy: Tensor, r: Tensor) -> Tensor:
        return gy * (0.5 + r - r**3 / 2)


@frozen
class Hardswish(Activation):
    """SiLU of straight lines, x min(max(0, s x + ½), 1), with the ``slope`` s.

    As in torch the slope is 1/6, as in thinc's ``HardSwishMobilenet``; that of its ``HardSwish`` is 0.2.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` for a slope that is not above 0, and when ``x`` is not a floating tensor.
    Source   Howard et al. 2019, "Searching for MobileNetV3".
    """

    slope: float = field(default=1 / 6, validator=number(above=0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.slope == 1 / 6:
            return kernels.hardswish(x), x
        return kernels.gate(lambda z: z * hardtanh(self._line(z), 0.0, 1.0), x), x  # clamp has the slope 1 at bounds

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        if self.slope == 1 / 6:
            return kernels.hardswish_backward(gy, x)
        u = self._line(x)
        return gy * torch.where(u <= 0, 0.0, torch.where(u >= 1, 1.0, u + self.slope * x))

    def _line(self, x: Tensor) -> Tensor:
        return self.slope * x + 0.5
