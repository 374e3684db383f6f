"""Functions of mathematics, by element, for x (...) of any shape. ⊙ is the product by element.

Sin        y = sin x                      gx = gy ⊙ cos x
Cos        y = cos x                      gx = -gy ⊙ sin x
Exp        y = eˣ                         gx = gy ⊙ y
Square     y = x²                         gx = 2 gy ⊙ x
Monomial   y = xⁿ                         gx = n gy ⊙ xⁿ⁻¹
Abs        y = |x|                        gx = gy ⊙ sign x
Sign       y = sign x                     gx = 0
Erf        y = 2/√π ∫₀ˣ e⁻ᵗ² dt           gx = 2/√π gy ⊙ e⁻ˣ²
Gaussian   y = a eᵇˣ²                     gx = 2 b gy ⊙ x y
RandomFourier   y = √2 sin(√(2γ) x + π/4)      gx = 2 √γ gy ⊙ cos(√(2γ) x + π/4)
"""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, whole
from funcnet.kernels.limits import finite
from funcnet.layers.activation.base import Activation
from funcnet.precision import HALF
from funcnet.value import frozen


@frozen
class Sin(Activation):
    """Sine, as in networks of periodic functions.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Sitzmann et al. 2020.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.cos(x)


@frozen
class Cos(Activation):
    """Cosine.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cos(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return -gy * torch.sin(x)


@frozen
class Exp(Activation):
    """Exponential; it overflows to infinity as ``torch.exp`` does.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.exp(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return gy * y


@frozen
class Square(Activation):
    """Square.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * x, x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * x * 2


@frozen
class Monomial(Activation):
    """Power with a whole exponent of at least 1, xⁿ.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` for a ``degree`` below 1, and when ``x`` is not a floating tensor.
    Source   neural-tangents' ``Monomial``.
    """

    degree: int = field(validator=whole(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.pow(x, self.degree), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.pow(x, self.degree - 1) * self.degree


@frozen
class Abs(Activation):
    """Absolute value; the gradient at 0 is 0.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.abs(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.sign(x)


@frozen
class Sign(Activation):
    """Sign, -1, 0 or 1; its gradient is 0 everywhere.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sign(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


@frozen
class Erf(Activation):
    """Error function.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   elementary, as ``torch.erf``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.erf(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.exp(-x * x) * (2 / math.sqrt(math.pi))


@frozen
class Gaussian(Activation):
    """Bell curve a eᵇˣ², for a negative b.

    Params   none.
    Cache    ``x``, ±∞ replaced by the largest numbers.
    Raises   ``ValueError`` for numbers that are not finite, and when ``x`` is not a floating tensor.
    Source   neural-tangents' ``Gaussian``.
    """

    a: float = field(default=1.0, validator=number())
    b: float = field(default=-1.0, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = finite(x)
        return torch.exp(x * x * self.b) * self.a, x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * (x * torch.exp(x * x * self.b) * (2 * self.a * self.b))


@frozen
class RandomFourier(Activation):
    """Random Fourier features, √2 sin(√(2γ) x + π/4), of an x that is a random map of the input.

    After a ``Linear`` without bias and with standard normal weights, the mean of the product of two feature vectors is the
    Gaussian kernel of their inputs, exp(-γ ‖u - v‖²). For a layer of radial basis functions with learned centers see ``RBF``.

    Params   none.
    Cache    √(2γ) x + π/4; in half precision ``x``.
    Raises   ``ValueError`` for a ``gamma`` that is not above 0 and finite, and when ``x`` is not a floating tensor.
    Source   Rahimi & Recht 2007; neural-tangents' ``RandomFourier``.
    """

    gamma: float = field(default=1.0, validator=number(above=0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype in HALF:  # bfloat16 would round an angle of 100 by up to a quarter
            return self.forward(x.float())[0].to(x.dtype), x
        u = self._angle(x)
        return torch.sin(u) * math.sqrt(2), u

    def backward(self, gy: Tensor, cache: Tensor) -> Tensor:
        if cache.dtype in HALF:
            return self.backward(gy.float(), self._angle(cache.float())).to(gy.dtype)
        return gy * torch.cos(cache) * (2 * math.sqrt(self.gamma))

    def _angle(self, x: Tensor) -> Tensor:
        return x * math.sqrt(2 * self.gamma) + math.pi / 4
