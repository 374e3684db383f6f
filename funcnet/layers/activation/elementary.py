"""Elementary functions, elementwise, for x (...) of any shape.

y and gx have the shape of x. ⊙ is the elementwise product.
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
    """Sine, as in networks with periodic activations.

        y  = sin x
        gx = gy ⊙ cos x

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Sitzmann et al. 2020, "Implicit neural representations with periodic activation functions".
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.cos(x)


@frozen
class Cos(Activation):
    """Cosine.

        y  = cos x
        gx = -gy ⊙ sin x

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.cos``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cos(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return -gy * torch.sin(x)


@frozen
class Exp(Activation):
    """Exponential function.

        y  = eˣ
        gx = gy ⊙ y

    Large x overflow to infinity, as in ``torch.exp``.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.exp``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.exp(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return gy * y


@frozen
class Square(Activation):
    """Square of every element.

        y  = x²
        gx = 2 gy ⊙ x

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.square``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * x, x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * x * 2


@frozen
class Monomial(Activation):
    """Power with a positive integer exponent.

        y  = xⁿ
        gx = n gy ⊙ xⁿ⁻¹

    Args:
        degree: The exponent n, at least 1.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        neural-tangents' ``Monomial``.

    >>> Monomial(3)({}, torch.tensor([2.0]))
    tensor([8.])
    """

    degree: int = field(validator=whole(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.pow(x, self.degree), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.pow(x, self.degree - 1) * self.degree


@frozen
class Abs(Activation):
    """Absolute value.

        y  = |x|
        gx = gy ⊙ sign x        0 at x = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.abs``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.abs(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.sign(x)


@frozen
class Sign(Activation):
    """Sign of every element: -1, 0 or 1.

        y  = sign x
        gx = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.sign``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sign(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


@frozen
class Erf(Activation):
    """Error function.

        y  = 2/√π ∫₀ˣ e⁻ᵗ² dt
        gx = 2/√π gy ⊙ e⁻ˣ²

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.erf``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.erf(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy * torch.exp(-x * x) * (2 / math.sqrt(math.pi))


@frozen
class Gaussian(Activation):
    """Gaussian function: a bell curve if ``b`` is negative.

        y  = a eᵇˣ²
        gx = 2 b gy ⊙ x ⊙ y

    Args:
        a: Height at x = 0.
        b: Factor of x² in the exponent; the standard deviation of the bell is 1/√(-2b).

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, with ±∞ replaced by the largest finite numbers.

    References:
        neural-tangents' ``Gaussian``.

    >>> Gaussian()({}, torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.3679])
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
    """Random Fourier features, where x is a random linear map of the input.

        y  = √2 sin(√(2γ) x + π/4)
        gx = 2 √γ gy ⊙ cos(√(2γ) x + π/4)

    After a ``Linear`` without bias and with standard normal weights, the mean product of two feature vectors approximates the
    Gaussian kernel of their inputs, exp(-γ ‖u - v‖²). For radial basis functions with learned centers see ``RBF``.

    Args:
        gamma: The factor γ of the squared distance in the kernel, above 0.

    Shape:
        x (...) → y (...)

    Cache:
        The angle √(2γ) x + π/4; in half precision ``x``.

    References:
        Rahimi & Recht 2007, "Random features for large-scale kernel machines"; neural-tangents' ``Rbf``.

    >>> RandomFourier()({}, torch.zeros(1))
    tensor([1.0000])
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
