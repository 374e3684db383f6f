"""Shrinkages: x moved towards 0, or set to it where it is small; by element, for x (...) of any shape.

Softshrink   y = x - λ where x > λ, x + λ where x < -λ, else 0      gx = gy where |x| > λ, else 0
Hardshrink   y = x where |x| > λ, else 0                            gx = gy where |y| > λ, else 0
Tanhshrink   y = x - t,  t = tanh x                                 gx = gy ⊙ t²
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
    """x nearer to 0 by ``lambd``, and 0 where it is no further away than that; the gradient at ±``lambd`` is 0.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` for a ``lambd`` that is negative or not finite, and when ``x`` is not a floating tensor.
    Source   Donoho & Johnstone 1994, where it is called soft thresholding; ``torch.nn.Softshrink``'s formula.
    """

    lambd: float = field(default=0.5, validator=number(0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.softshrink(x, self.lambd), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.softshrink_backward(gy, x, self.lambd)


@frozen
class Hardshrink(Activation):
    """x where it is further from 0 than ``lambd``, else 0; the gradient at ±``lambd`` is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` for a ``lambd`` that is not finite, and when ``x`` is not a floating tensor.
    Source   Donoho & Johnstone 1994, where it is called hard thresholding; ``torch.nn.Hardshrink``'s formula.
    """

    lambd: float = field(default=0.5, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.hardshrink(x, self.lambd)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.hardshrink_backward(gy, y, self.lambd)


@frozen
class Tanhshrink(Activation):
    """x - tanh x: nearly nothing of a small x, all but 1 of a large one.

    Params   none.
    Cache    tanh x.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.Tanhshrink``'s formula.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh(x)
        return x - t, t

    def backward(self, gy: Tensor, t: Tensor) -> Tensor:
        return gy * t * t
