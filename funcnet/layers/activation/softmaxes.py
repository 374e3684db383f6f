"""Softmaxes: shares of a whole along an axis, their logarithms, and the logarithm of the whole. Sums are along ``dim``.

Softmax        y = eᶻ / Σ eᶻ,  z = x / T       gx = y ⊙ (gy - Σ gy ⊙ y) / T        T = temperature
GumbelSoftmax  Softmax of x + ε, ε = -log(-log u), u drawn evenly from (0, 1), T = tau
Softmin        y = e⁻ˣ / Σ e⁻ˣ                 gx = -y ⊙ (gy - Σ gy ⊙ y)
Softmax2d      Softmax over the channels of images
MultiSoftmax   Softmax of each group of features
LogSoftmax     y = x - log Σ eˣ                gx = gy - eʸ Σ gy
LogSumExp      y = log Σ eˣ                    gx = gy eˣ⁻ʸ

Where the largest x is infinite, all that equal it have equal shares, and the others none. With one ∞ this is the limit; numbers
that are all -∞ share as other equal numbers do.

x and y have one shape, (...), but the y of LogSumExp, which is without the axis ``dim``, or with ``keepdim`` has 1 there.
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
    """Positive shares that sum to 1 along ``dim``: eˣ / Σ eˣ, shifted by the largest x, so without overflow.

    The default ``dim`` is the last axis, where ``torch.nn.Softmax`` warns and guesses. A ``temperature`` above 1 evens the shares
    out, one below 1 sharpens them.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` for a temperature that is not above 0 and finite, when ``x`` has no axis ``dim``, or is not a floating
             tensor.
    Source   Bridle 1990; Hinton, Vinyals & Dean 2015 for the temperature.
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
    """Softmax along ``dim`` of x with noise drawn from Gumbel's distribution, at the temperature ``tau``.

    Its largest share is a draw by the shares of ``Softmax()``, and with a ``tau`` near 0 it is almost all of the whole. As
    ``torch.nn.functional.gumbel_softmax``, without its ``hard``, whose y has another gradient than is its own. The noise is a
    pure function of the key; ``inference()`` is the softmax without it.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` for a tau that is not above 0 and finite, without a key, when ``x`` has no axis ``dim``, or is not a
             floating tensor.
    Source   Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017.
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
    """Softmax of -x: the smallest x has the largest share.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``, or is not a floating tensor.
    Source   ``torch.nn.Softmin``'s formula.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        y = softmax(-require_dense_floating(self, params, x), self.dim)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, -kernels.softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype)


@frozen
class Softmax2d(Layer):
    """Softmax over the channels at each place of an image: (N, C, H, W), or (C, H, W) without a batch.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` does not have 3 or 4 axes, or is not a floating tensor.
    Source   ``torch.nn.Softmax2d``'s formula.
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
    """Softmax of each group of features: ``sizes`` are those of the groups along the last axis, in order.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` for sizes that are not whole numbers of at least 1, and when ``x`` is not a floating tensor whose last
             axis is their sum.
    Source   thinc's ``MultiSoftmax``, whose linear map is a layer of its own here.
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
    """Logarithm of ``Softmax``: x - log Σ eˣ along ``dim``, shifted by the largest x, so without overflow.

    The default ``dim`` is the last axis, where ``torch.nn.LogSoftmax`` warns and guesses.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``, or is not a floating tensor.
    Source   ``torch.nn.LogSoftmax``'s formula.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        y = log_softmax(require_dense_floating(self, params, x), self.dim)
        return y, y

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.log_softmax_backward(check_gy(self, gy, cache.shape, cache), cache, self.dim, cache.dtype)


@frozen
class LogSumExp(Along):
    """Smooth maximum along ``dim``, log Σ eˣ, shifted by the largest x, so without overflow.

    Params   none.
    Cache    ``x``: eˣ⁻ʸ is its softmax, which a rounded y would spoil, in bfloat16 by a tenth.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``, or is not a floating tensor.
    Source   ``torch.logsumexp``'s formula.
    """

    keepdim: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return logsumexp(require_dense_floating(self, params, x), self.dim, self.keepdim), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        dim, y = self.dim % max(cache.dim(), 1), softmax(cache, self.dim)
        gy = check_gy(self, gy, (*cache.shape[:dim], *(1,) * (self.keepdim and cache.dim() > 0), *cache.shape[dim + 1 :]), cache)
        return params, (gy if self.keepdim or not cache.dim() else gy.unsqueeze(dim)) * y
