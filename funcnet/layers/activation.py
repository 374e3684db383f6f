"""Activations: one function applied to every element, or along one axis. gy is the gradient of y, ⊙ the product by element.

    ReLU        y = max(0, x)                    gx = gy where y > 0, else 0
    LeakyReLU   y = x where x > 0, else s x      gx = gy where x > 0, else s gy         s = negative_slope
    Sigmoid     y = 1 / (1 + e⁻ˣ)                gx = gy ⊙ y (1 - y)
    Tanh        y = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)      gx = gy ⊙ (1 - y²)
    Softmax     y = eˣ / Σ eˣ                    gx = y ⊙ (gy - Σ gy ⊙ y)               sums along dim
    LogSoftmax  y = x - log Σ eˣ                 gx = gy - eʸ Σ gy

All but LeakyReLU with a negative slope keep their output alone: the next layer's cache mostly holds it anyway.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import number, whole_number
from funcnet.kernels import activation as kernels
from funcnet.layer import Layer, Params, axis, fitting, floating, frozen


@frozen
class ReLU(Layer):
    """Rectified linear unit, max(0, x); the gradient at 0 is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Nair & Hinton 2010.
    """

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(floating(self, params, x))
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.threshold_backward(fitting(self, gy, cache), cache, 0)


@frozen
class LeakyReLU(Layer):
    """x for positive x, else ``negative_slope`` x; the gradient at 0 is ``negative_slope``.

    Params   none.
    Cache    ``y``, whose sign is that of ``x``; ``x`` itself when the slope is negative or 0.
    Raises   ``ValueError`` for a slope that is not finite, and when ``x`` is not a floating tensor.
    Source   Maas, Hannun & Ng 2013.
    """

    negative_slope: float = field(default=0.01, validator=number())

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.leaky_relu(floating(self, params, x), self.negative_slope)
        return y, y if self.negative_slope > 0 else x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.leaky_relu_backward(fitting(self, gy, cache), cache, self.negative_slope, False)


@frozen
class Sigmoid(Layer):
    """Logistic function 1 / (1 + e⁻ˣ), without overflow for any x.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    """

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(floating(self, params, x))
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.sigmoid_backward(fitting(self, gy, cache), cache)


@frozen
class Tanh(Layer):
    """Hyperbolic tangent, without overflow for any x.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    """

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(floating(self, params, x))
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.tanh_backward(fitting(self, gy, cache), cache)


@frozen
class Softmax(Layer):
    """Positive shares that sum to 1 along ``dim``: eˣ / Σ eˣ, shifted by the largest x, so without overflow.

    The default ``dim`` is the last axis, where ``torch.nn.Softmax`` warns and guesses.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``, or is not a floating tensor.
    Source   Bridle 1990.
    """

    dim: int = field(default=-1, validator=whole_number)

    @property
    def mixes_batch(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.softmax(floating(self, params, x), axis(self, x, self.dim))
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.softmax_backward(fitting(self, gy, cache), cache, self.dim, cache.dtype)


@frozen
class LogSoftmax(Layer):
    """Logarithm of ``Softmax``: x - log Σ eˣ along ``dim``, shifted by the largest x, so without overflow.

    The default ``dim`` is the last axis, where ``torch.nn.LogSoftmax`` warns and guesses.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``, or is not a floating tensor.
    """

    dim: int = field(default=-1, validator=whole_number)

    @property
    def mixes_batch(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.log_softmax(floating(self, params, x), axis(self, x, self.dim))
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.log_softmax_backward(fitting(self, gy, cache), cache, self.dim, cache.dtype)
