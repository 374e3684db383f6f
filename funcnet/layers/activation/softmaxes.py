"""Softmaxes: probabilities along an axis, their logarithms, and the logarithm of the normalizer.

Sums run along ``dim``. Every formula is shifted by the largest x, and cannot overflow.

If the largest x is infinite, all elements equal to it have the same probability, and the others have probability 0. For a single
+∞ that is the limit. If all elements are -∞, they have equal probabilities, like any other equal elements.

y and gx have the shape of x, (...), except for ``LogSumExp``, which reduces the axis ``dim``. ⊙ is the elementwise product.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import axis_complaint, came, check_gy, require_dense_floating, require_key
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import MOST, flag, is_whole_tuple, number, valid_if, value_error, whole_number
from funcnet.kernels import activation as kernels
from funcnet.kernels.limits import log_softmax, logsumexp, softmax
from funcnet.layers.activation.base import Along
from funcnet.random.keys import key_beside
from funcnet.value import frozen


@frozen
class Softmax(Along):
    """Probabilities along an axis: positive numbers that sum to 1.

        y  = eᶻ / Σ eᶻ                          z = x / T, T = temperature
        gx = y ⊙ (gy - Σ gy ⊙ y) / T

    Args:
        dim: Axis along which y sums to 1. The default is the last one; ``torch.nn.Softmax`` warns and guesses instead.
        temperature: The temperature T, above 0: above 1 it flattens the distribution, below 1 it sharpens it.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        Bridle 1990; Hinton, Vinyals & Dean 2015, eq. 1, for the temperature.

    >>> Softmax()({}, torch.tensor([0.0, 0.0, 1.0]))
    tensor([0.2119, 0.2119, 0.5761])
    """

    temperature: float = field(default=1.0, validator=number(above=0.0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        z = self._scaled(require_dense_floating(self, params, x))
        y = softmax(z, self.dim)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, self._scaled(
            kernels.softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype)
        )

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.temperature == 1 else x / self.temperature


@frozen
class GumbelSoftmax(Layer):
    """Softmax of x plus Gumbel noise: a differentiable approximation of a categorical sample.

        y  = eᶻ / Σ eᶻ                          z = (x + ε) / T, T = tau
        gx = y ⊙ (gy - Σ gy ⊙ y) / T            ε = -log(-log u), u uniform in (0, 1)

    The position of the largest y is a sample from ``Softmax()`` of x. As ``tau`` goes to 0, y approaches the one-hot vector of
    that sample. This is ``torch.nn.functional.gumbel_softmax`` without its option ``hard``, whose gradient is not the derivative
    of its output. The noise is a pure function of the key; ``inference()`` returns the softmax without noise.

    Args:
        tau: The temperature T, above 0.
        dim: Axis along which y sums to 1.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        Jang, Gu & Poole 2017, "Categorical reparameterization with Gumbel-softmax", eq. 2; Maddison, Mnih & Teh 2017.
    """

    tau: float = field(default=1.0, validator=number(above=0.0))
    dim: int = field(default=-1, validator=whole_number)

    stochastic = True

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        rng, shape = require_key(self, rng), tuple(require_dense_floating(self, params, x).shape)
        noise = random.gumbel(key_beside(rng, x), shape, torch.promote_types(x.dtype, torch.float32))
        y = softmax((x + noise) / self.tau, self.dim).to(x.dtype)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype) / self.tau

    def inference(self) -> Layer:
        return Softmax(self.dim, self.tau)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, self.dim)


@frozen
class Softmin(Along):
    """Softmax of -x: the smallest x has the largest probability.

        y  = e⁻ˣ / Σ e⁻ˣ
        gx = -y ⊙ (gy - Σ gy ⊙ y)

    Args:
        dim: Axis along which y sums to 1.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.nn.Softmin``.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        y = softmax(-require_dense_floating(self, params, x), self.dim)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, -kernels.softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype)


@frozen
class Softmax2d(Layer):
    """Softmax over the channels at each pixel of an image.

        y  = eˣ / Σ eˣ                     sums over the channels
        gx = y ⊙ (gy - Σ gy ⊙ y)

    Shape:
        x (N, C, H, W) → y (N, C, H, W), or both (C, H, W).

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If x does not have 3 or 4 axes.

    References:
        ``torch.nn.Softmax2d``.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        if require_dense_floating(self, params, x).dim() not in (3, 4):
            raise value_error(self, "x must have the axes (N, C, H, W) or (C, H, W)", came(x))
        y = softmax(x, -3)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.softmax_backward(check_gy(self, gy, cache.shape, cache), cache, -3, cache.dtype)


@frozen
class MultiSoftmax(Layer):
    """Softmax within each of several groups of features.

        y  = eˣ / Σ eˣ                     sums over the features of the group
        gx = y ⊙ (gy - Σ gy ⊙ y)

    Args:
        sizes: Sizes of the groups, in order along the last axis.

    Shape:
        x (..., sum of sizes) → y (..., sum of sizes)

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If the last axis of x is not the sum of ``sizes``.

    References:
        thinc's ``MultiSoftmax``, without its linear map.

    >>> MultiSoftmax((1, 2))({}, torch.zeros(3))
    tensor([1.0000, 0.5000, 0.5000])
    """

    sizes: tuple[int, ...] = field(
        validator=valid_if(lambda got: is_whole_tuple(got, 1) and got != (), "a tuple of whole numbers of at least 1", most=MOST)
    )

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        groups = torch.split(require_dense_floating(self, params, x), list(self.sizes), -1)
        y = torch.cat([softmax(group, -1) for group in groups], -1)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        pairs = zip(*[torch.split(z, list(self.sizes), -1) for z in (check_gy(self, gy, cache.shape, cache), cache)], strict=True)
        return params, torch.cat([kernels.softmax_backward(g, y, -1, y.dtype) for g, y in pairs], -1)

    def complaint(self, x: Tensor) -> str | None:
        return f"the last axis of x must be the sum of sizes, {sum(self.sizes)}"


@frozen
class LogSoftmax(Along):
    """Logarithm of the softmax.

        y  = x - log Σ eˣ
        gx = gy - eʸ Σ gy

    Args:
        dim: Axis of the softmax. The default is the last one; ``torch.nn.LogSoftmax`` warns and guesses instead.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.nn.LogSoftmax``.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        y = log_softmax(require_dense_floating(self, params, x), self.dim)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.log_softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype)


@frozen
class LogSumExp(Along):
    """Logarithm of the sum of exponentials, a smooth maximum along an axis.

        y  = log Σ eˣ
        gx = gy ⊙ eˣ⁻ʸ

    Args:
        dim: Axis that is reduced.
        keepdim: Whether y keeps that axis, with size 1.

    Shape:
        x (..., n, ...) → y (..., ...), or (..., 1, ...) with ``keepdim``.

    Cache:
        ``x``, not copied: eˣ⁻ʸ is the softmax of x, and would be off by 10 % if computed from a y rounded to bfloat16.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.logsumexp``.

    >>> LogSumExp()({}, torch.zeros(2, 8)).shape
    torch.Size([2])
    """

    keepdim: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return logsumexp(require_dense_floating(self, params, x), self.dim, self.keepdim), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        dim, y = self.dim % max(cache.dim(), 1), softmax(cache, self.dim)
        gy = check_gy(self, gy, (*cache.shape[:dim], *(1,) * (self.keepdim and cache.dim() > 0), *cache.shape[dim + 1 :]), cache)
        return params, (gy if self.keepdim or not cache.dim() else gy.unsqueeze(dim)) * y
