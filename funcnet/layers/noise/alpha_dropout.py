"""Alpha dropout: dropped elements take the value SELU saturates at, and mean and variance are kept.

    y = a (x - (1 - m) (x + α)) + a α p      gx = a m ⊙ gy
    a = 1 / √((1 - p) (1 + p α²)), α = 1.758..., where -α is the limit of SELU

m = 1 with probability 1 - p, else 0. AlphaDropout draws m for each element of x (...), FeatureAlphaDropout for each channel of x
(N, channels, ...).
"""

import math

import torch
from torch import Tensor

from funcnet.checks import Misfit
from funcnet.layers.noise.dropout import Dropping
from funcnet.value import frozen

_ALPHA = 1.6732632423543772 * 1.0507009873554805


@frozen
class _Alpha(Dropping):
    """Dropout that sets elements to the limit of SELU; a subclass gives the shape of the mask."""

    def masked(self, x: Tensor, keep: Tensor) -> Tensor:
        a = self.scale()
        return torch.where(keep, x * a, -_ALPHA * a) + _ALPHA * a * self.p

    def scale(self) -> float:
        return 1 / math.sqrt((1 - self.p) * (1 + self.p * _ALPHA**2)) if self.p < 1 else 0.0


@frozen
class AlphaDropout(_Alpha):
    """Dropout for nets of SELU: each element is set to -α with probability ``p``, and all scaled to keep mean 0 and variance 1.

    Params   none.
    Cache    the mask (bool), True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and when ``x`` is not a floating tensor.
    Source   Klambauer et al. 2017, section 3; with p = 1 all are 0, as in torch.nn.
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)


@frozen
class FeatureAlphaDropout(_Alpha):
    """Alpha dropout of whole channels of (N, channels, ...); all else is as in ``AlphaDropout``.

    Params   none.
    Cache    the mask (bool), (N, channels, 1, ...), True for what stays; shape, dtype and device of ``x``.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has no channels.
    Source   ``torch.nn.FeatureAlphaDropout``'s formula; Klambauer et al. 2017, section 3, for that of ``AlphaDropout``.
    """

    forms = ("N, channels, ...",)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() < 2:
            raise Misfit
        return (*x.shape[:2], *[1] * (x.dim() - 2))
