"""Shrinkage functions: x moved toward 0, or set to 0 where it is small; elementwise, for x (...) of any shape.

y and gx have the shape of x. ⊙ is the elementwise product.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels import activation as kernels
from funcnet.layers.activation.base import Activation
from funcnet.value import frozen


@frozen
class Softshrink(Activation):
    """Soft thresholding: move every element toward 0 by λ.

        y  = x - λ where x > λ, x + λ where x < -λ, else 0        λ = lambd
        gx = gy where |x| > λ, else 0

    Args:
        lambd: The threshold λ, at least 0.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage"; ``torch.nn.Softshrink``.

    >>> Softshrink()({}, torch.tensor([-2.0, 0.3, 2.0]))
    tensor([-1.5000,  0.0000,  1.5000])
    """

    lambd: float = field(default=0.5, validator=number(0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.softshrink(x, self.lambd), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.softshrink_backward(gy, x, self.lambd)


@frozen
class Hardshrink(Activation):
    """Hard thresholding: set every element within λ of 0 to 0.

        y  = x where |x| > λ, else 0         λ = lambd
        gx = gy where |y| > λ, else 0

    Args:
        lambd: The threshold λ; a negative one leaves x unchanged.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage"; ``torch.nn.Hardshrink``.

    >>> Hardshrink()({}, torch.tensor([-2.0, 0.3, 2.0]))
    tensor([-2.,  0.,  2.])
    """

    lambd: float = field(default=0.5, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.hardshrink(x, self.lambd)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.hardshrink_backward(gy, y, self.lambd)


@frozen
class Tanhshrink(Activation):
    """Remainder of tanh: close to 0 for small |x|, close to x - 1 for large x.

        y  = x - t           t = tanh x
        gx = gy ⊙ t²

    Shape:
        x (...) → y (...)

    Cache:
        t.

    References:
        ``torch.nn.Tanhshrink``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh(x)
        return x - t, t

    def backward(self, gy: Tensor, t: Tensor) -> Tensor:
        return gy * t * t
