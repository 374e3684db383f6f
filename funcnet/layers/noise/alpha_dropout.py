"""Alpha dropout: dropped elements take the value SELU saturates at, and mean and variance are kept.

    y = a (x - (1 - m) (x + α)) + a α p      gx = a m ⊙ gy
    a = 1 / √((1 - p) (1 + p α²)), α = 1.758..., where -α is the limit of SELU

m = 1 with probability 1 - p, else 0. AlphaDropout draws m for each element of x (...), FeatureAlphaDropout for each channel of x
(N, channels, ...).
"""

import math
from abc import abstractmethod

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import check_gy, require_floating, require_key
from funcnet.contract import Layer, Params, Rng
from funcnet.errors import number, value_error
from funcnet.kernels import operands as arithmetic
from funcnet.layers.shape.reshaping import Identity
from funcnet.value import frozen

_ALPHA = 1.6732632423543772 * 1.0507009873554805


@frozen
class _Alpha(Layer):
    """Alpha dropout of parts of x that a subclass says by the shape of the mask; all else is here."""

    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    stochastic = True

    @abstractmethod
    def _parts(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask, which is that of x with 1 for the axes along which all is dropped together."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        rng = require_key(self, rng)
        keep = random.bernoulli(rng, self._parts(require_floating(self, params, x)), 1 - self.p)
        a = self._scale()
        return torch.where(keep, x * a, -_ALPHA * a) + _ALPHA * a * self.p, keep

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        gx = arithmetic.masked_scale(gy, cache, self._scale())
        check_gy(self, gy, gx.shape)  # the mask would repeat it
        return params, gx

    def inference(self) -> Layer:
        return Identity()

    def _scale(self) -> float:
        return 1 / math.sqrt((1 - self.p) * (1 + self.p * _ALPHA**2)) if self.p < 1 else 0.0


@frozen
class AlphaDropout(_Alpha):
    """Dropout for nets of SELU: each element is set to -α with probability ``p``, and all scaled to keep mean 0 and variance 1.

    Params   none.
    Cache    the mask (bool), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and when ``x`` is not a floating tensor.
    Source   Klambauer et al. 2017, section 3; with p = 1 all are 0, as in torch.nn.
    """

    def _parts(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)


@frozen
class FeatureAlphaDropout(_Alpha):
    """Alpha dropout of whole channels of (N, channels, ...); all else is as in ``AlphaDropout``.

    Params   none.
    Cache    the mask (bool), (N, channels, 1, ...), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has no channels.
    Source   ``torch.nn.FeatureAlphaDropout``'s formula; Klambauer et al. 2017, section 3, for that of ``AlphaDropout``.
    """

    def _parts(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() < 2:
            raise value_error(self, "x must have the axes (N, channels, ...)", f"x of shape {tuple(x.shape)}")
        return (*x.shape[:2], *[1] * (x.dim() - 2))
