"""Powers and logarithms, by element, for x (...) of any shape. ⊙ is the product by element.

PowScalar    y = xᵖ            gx = p gy ⊙ xᵖ⁻¹, and 0 for p = 0
Sqrt         y = √x            gx = gy / (2 y)
Rsqrt        y = 1 / √x        gx = -gy ⊙ y³ / 2
Reciprocal   y = 1 / x         gx = -gy ⊙ y²
Log          y = log x         gx = gy / x
Log1p        y = log(1 + x)    gx = gy / (1 + x)
Expm1        y = eˣ - 1        gx = gy ⊙ (y + 1)
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
    """x to a fixed power; at 0 the gradient is 0 for a power above 1, and infinite between 0 and 1.

    Args:
        exponent: The power.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``x``.

    Raises:
        ValueError: For an exponent that is no finite number, and an x that is no floating tensor.

    Source:
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
    """Square root; at 0 its gradient is infinite.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
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

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
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
    """Reciprocal 1 / x.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
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

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``x``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
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
    """Logarithm of 1 + x, exact for small x.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``x``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
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
    """Exponential minus 1, exact for small x.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
        ``torch.expm1``.

    >>> Expm1()({}, torch.tensor([0.0]))
    tensor([0.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.expm1(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return gy * (y + 1)
