"""Gates: x times something that says how much of it passes. gy is the gradient of y, ⊙ the product by element.

    GELU    y = x Φ(x)        gx = gy ⊙ (Φ(x) + x φ(x))               Φ, φ: distribution function and density of N(0, 1)
            or with Φ(x) ≈ (1 + tanh u) / 2,  u = √(2/π) (x + 0.044715 x³)
    SiLU    y = x σ(x)        gx = gy ⊙ σ(x) (1 + x (1 - σ(x)))       σ(x) = 1 / (1 + e⁻ˣ)

None of these functions rises everywhere, so that y does not tell x: they keep x.
"""

from attrs import field
from torch import Tensor

from funcnet.errors import one_of
from funcnet.kernels import activation as kernels
from funcnet.layer import frozen
from funcnet.layers.activation import Activation


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
