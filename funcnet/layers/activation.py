"""Activations: one function applied to every element of x (...), of any shape, which y and both gradients have too.

    ReLU        y = max(0, x)                    gx = gy where y > 0, else 0
    LeakyReLU   y = x where x > 0, else s x      gx = gy where x > 0, else s gy         s = negative_slope
    Sigmoid     y = 1 / (1 + e⁻ˣ)                gx = gy ⊙ y (1 - y)
    Tanh        y = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)      gx = gy ⊙ (1 - y²)             ⊙ the product by element

Here are the oldest, and ``Activation``, on which stand too ``rectifiers``, ``gates``, ``sigmoids``, ``softpluses``,
``shrinkages`` and ``functions``. What goes along an axis is in ``softmaxes``. An activation keeps its output rather than its
input where the derivative allows it: the next layer's cache mostly holds it anyway.
"""

from abc import abstractmethod

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, whole_number
from funcnet.kernels import activation as kernels
from funcnet.layer import Layer, Params, fitting, floating, frozen


class Activation(Layer):
    """A layer that applies one function to every element: ``forward`` and ``backward`` say which, and ``kept`` is all between."""

    __slots__ = ()

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y, and the tensor of its shape that ``backward`` needs."""

    @abstractmethod
    def backward(self, gy: Tensor, kept: Tensor, /) -> Tensor:
        """Return gx."""

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        if params or type(x) is not Tensor or not x.is_floating_point():
            floating(self, params, x)  # only where something may be wrong: a call less in each small layer
        return self.forward(x)

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        if gy.shape != cache.shape:
            fitting(self, gy, cache)
        return params, self.backward(gy, cache)


@frozen
class Along(Layer):
    """A layer that works along the axis ``dim``, by default the last; along the first one it mixes the batch."""

    dim: int = field(default=-1, validator=whole_number)

    @property
    def mixes_batch(self) -> bool:
        return self.dim == 0


@frozen
class ReLU(Activation):
    """Rectified linear unit, max(0, x); the gradient at 0 is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Nair & Hinton 2010.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.threshold_backward(gy, y, 0)


@frozen
class LeakyReLU(Activation):
    """x for positive x, else ``negative_slope`` x; the gradient at 0 is ``negative_slope``.

    Params   none.
    Cache    ``y``, whose sign is that of ``x``; ``x`` itself when the slope is negative or 0.
    Raises   ``ValueError`` for a slope that is not finite, and when ``x`` is not a floating tensor.
    Source   Maas, Hannun & Ng 2013.
    """

    negative_slope: float = field(default=0.01, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.leaky_relu(x, self.negative_slope)
        return y, y if self.negative_slope > 0 else x

    def backward(self, gy: Tensor, kept: Tensor) -> Tensor:
        return kernels.leaky_relu_backward(gy, kept, self.negative_slope, False)


@frozen
class Sigmoid(Activation):
    """Logistic function 1 / (1 + e⁻ˣ), without overflow for any x.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.Sigmoid``'s formula.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.sigmoid_backward(gy, y)


@frozen
class Tanh(Activation):
    """Hyperbolic tangent, without overflow for any x.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.Tanh``'s formula.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.tanh(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.tanh_backward(gy, y)
