"""Alpha dropout: dropped elements are set to the value at which SELU saturates, and mean and variance are kept.

x (...), or (N, channels, ...) for whole channels. m is 1 with probability 1 - p, else 0. ⊙ is the elementwise product.
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
    """Base of dropout that sets elements to the limit of SELU; subclasses define the shape of the mask."""

    def masked(self, x: Tensor, keep: Tensor) -> Tensor:
        a = self.scale()
        return torch.where(keep, x * a, -_ALPHA * a) + _ALPHA * a * self.p

    def scale(self) -> float:
        return 1 / math.sqrt((1 - self.p) * (1 + self.p * _ALPHA**2)) if self.p < 1 else 0.0


@frozen
class AlphaDropout(_Alpha):
    """Dropout for nets with ``SELU``: dropped elements are set to its limit -α, and mean 0 and variance 1 are kept.

        y  = a (m ⊙ x - (1 - m) α) + a α p         m = 1 with probability 1 - p, else 0, for each element
        gx = a m ⊙ gy                              α = 1.7581, a = 1 / √((1 - p) (1 + p α²))

    The mask is a pure function of the key. With p = 0 the layer is the identity and needs no key; with p = 1 y is 0, as in
    torch.nn. ``inference()`` returns the identity.

    Args:
        p: Probability of dropping an element.

    Shape:
        x (...) → y (...)

    Cache:
        The mask m (bool); the shape of ``x``, and an empty tensor of its dtype and device.

    References:
        Klambauer et al. 2017, "Self-normalizing neural networks"; ``torch.nn.AlphaDropout``.
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)


@frozen
class FeatureAlphaDropout(_Alpha):
    """Alpha dropout of whole channels.

        y  = a (m ⊙ x - (1 - m) α) + a α p         m = 1 with probability 1 - p, else 0, for each channel
        gx = a m ⊙ gy                              α = 1.7581, a = 1 / √((1 - p) (1 + p α²))

    The mask is a pure function of the key. With p = 0 the layer is the identity and needs no key; with p = 1 y is 0.
    ``inference()`` returns the identity.

    Args:
        p: Probability of dropping a channel.

    Shape:
        x (N, channels, ...) → y (N, channels, ...)

    Cache:
        The mask m (bool), (N, channels, 1, ...); the shape of ``x``, and an empty tensor of its dtype and device.

    References:
        ``torch.nn.FeatureAlphaDropout``; Klambauer et al. 2017 for ``AlphaDropout``.
    """

    forms = ("N, channels, ...",)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() < 2:
            raise Misfit
        return (*x.shape[:2], *[1] * (x.dim() - 2))
