"""Softmaxes: shares of a whole along an axis, their logarithms, and the logarithm of the whole. Sums are along dim.

Softmax        y = eˣ / Σ eˣ      gx = y ⊙ (gy - Σ gy ⊙ y)
LogSoftmax     y = x - log Σ eˣ     gx = gy - eʸ Σ gy
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import whole_number
from funcnet.kernels import activation as kernels
from funcnet.layer import Layer, Params, axis, fitting, floating, frozen


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
