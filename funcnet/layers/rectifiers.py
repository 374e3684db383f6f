"""Rectifiers: x where it is positive, and something small, bounded or constant elsewhere. gy is the gradient of y.

ReLU6           y = min(max(0, x), 6)                      gx = gy where 0 < y < 6, else 0
ELU             y = x where x > 0, else α (eˣ - 1)         gx = gy where y > 0, else gy ⊙ (y + α)
CELU            y = x where x > 0, else α (eˣᐟᵅ - 1)       gx = gy where y > 0, else gy ⊙ (y + α) / α
SELU            y = s ELU(x), with α and s such that mean 0 and variance 1 are kept
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, wrong
from funcnet.kernels import activation as kernels
from funcnet.layer import frozen
from funcnet.layers.activation import Activation


@frozen
class ReLU6(Activation):
    """ReLU that stops at 6, min(max(0, x), 6); the gradient at 0 and at 6 is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Krizhevsky 2010, "Convolutional deep belief networks on CIFAR-10".
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.hardtanh(x, 0.0, 6.0)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.hardtanh_backward(gy, y, 0.0, 6.0)


@frozen
class ELU(Activation):
    """Exponential linear unit: x for positive x, else α (eˣ - 1); the gradient at 0 is α.

    Params   none.
    Cache    ``y``; ``x`` itself when ``alpha`` is negative.
    Raises   ``ValueError`` for an ``alpha`` that is not finite, and when ``x`` is not a floating tensor.
    Source   Clevert, Unterthiner & Hochreiter 2016.
    """

    alpha: float = field(default=1.0, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.elu(x, self.alpha)
        return y, y if self.alpha >= 0 else x

    def backward(self, gy: Tensor, kept: Tensor) -> Tensor:
        return kernels.elu_backward(gy, self.alpha, 1.0, 1.0, self.alpha >= 0, kept)


def _not_zero(layer: object, attribute: object, got: float) -> None:
    if got == 0:
        raise wrong("CELU", "alpha must not be 0", repr(got))


@frozen
class CELU(Activation):
    """ELU with a slope that goes on smoothly through 0 for every α: x for positive x, else α (eˣᐟᵅ - 1).

    Params   none.
    Cache    ``y``; ``x`` itself when ``alpha`` is negative.
    Raises   ``ValueError`` for an ``alpha`` that is 0 or not finite, and when ``x`` is not a floating tensor.
    Source   Barron 2017, "Continuously differentiable exponential linear units".
    """

    alpha: float = field(default=1.0, validator=[number(), _not_zero])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.elu(x, self.alpha, 1.0, 1 / self.alpha)
        return y, y if self.alpha > 0 else x

    def backward(self, gy: Tensor, kept: Tensor) -> Tensor:
        return kernels.elu_backward(gy, self.alpha, 1.0, 1 / self.alpha, self.alpha > 0, kept)


_SELU = {"alpha": 1.6732632423543772848170429916717, "scale": 1.0507009873554804934193349852946}


@frozen
class SELU(Activation):
    """Scaled ELU, whose α and scale keep mean 0 and variance 1 from layer to layer; the gradient at 0 is their product.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Klambauer, Unterthiner, Mayr & Hochreiter 2017, equation 14 for the numbers.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.selu(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.elu_backward(gy, _SELU["alpha"], _SELU["scale"], 1.0, True, y)
