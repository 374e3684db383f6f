"""Powers and logarithms, elementwise, for x (...) of any shape.

y and gx have the shape of x. ⊙ is the elementwise product.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.layers.activation.base import Activation
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class PowScalar(Activation):
    """Raise every element to a fixed power.

        y  = xᵖ
        gx = p gy ⊙ xᵖ⁻¹        0 for p = 0

    At x = 0 the gradient is 0 for p > 1, and infinite for 0 < p < 1.

    Args:
        exponent: The power p.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.pow``.

    >>> PowScalar(3.0)({}, torch.tensor([2.0]))
    tensor([8.])
    """

    exponent: float = field(validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.pow(x, self.exponent), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        if self.exponent == 0:
            return torch.zeros_like(x)
        return rounded(in_single(gy) * torch.pow(in_single(x), self.exponent - 1) * self.exponent, x)


@frozen
class Sqrt(Activation):
    """Square root.

        y  = √x
        gx = gy / (2 y)        infinite at x = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.sqrt``.

    >>> Sqrt()({}, torch.tensor([4.0]))
    tensor([2.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sqrt(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return gy / (y * 2)


@frozen
class Rsqrt(Activation):
    """Reciprocal of the square root.

        y  = 1 / √x
        gx = -gy ⊙ y³ / 2

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.rsqrt``.

    >>> Rsqrt()({}, torch.tensor([4.0]))
    tensor([0.5000])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.rsqrt(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        y = in_single(y)
        return rounded(in_single(gy) * (y * y * y * -0.5), gy)


@frozen
class Reciprocal(Activation):
    """Reciprocal.

        y  = 1 / x
        gx = -gy ⊙ y²

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.reciprocal``.

    >>> Reciprocal()({}, torch.tensor([4.0]))
    tensor([0.2500])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.reciprocal(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return -gy * y * y


@frozen
class Log(Activation):
    """Natural logarithm.

        y  = log x
        gx = gy / x

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.log``.

    >>> Log()({}, torch.tensor([1.0]))
    tensor([0.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy / x


@frozen
class Log1p(Activation):
    """Logarithm of 1 + x, accurate for small x.

        y  = log(1 + x)
        gx = gy / (1 + x)

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.log1p``.

    >>> Log1p()({}, torch.tensor([0.0]))
    tensor([0.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log1p(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return gy / (x + 1)


@frozen
class Expm1(Activation):
    """Exponential minus 1, accurate for small x.

        y  = eˣ - 1
        gx = gy ⊙ (y + 1)

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.expm1``.

    >>> Expm1()({}, torch.tensor([0.0]))
    tensor([0.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.expm1(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return gy * (y + 1)
