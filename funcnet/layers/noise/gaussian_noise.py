"""GaussianNoise: noise added to x during training.

y and gx have the shape of x, (...).
"""

from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import check_gy, kind_of, require_dense_floating, require_key
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import number
from funcnet.layers.shape.reshaping import Identity
from funcnet.random.keys import key_beside
from funcnet.value import frozen


@frozen
class GaussianNoise(Layer):
    """Add independent normal noise to every element.

        y  = x + σ n         n standard normal, σ = std
        gx = gy

    The noise is a pure function of the key. ``inference()`` returns the identity.

    Args:
        std: Standard deviation σ of the noise, at least 0.

    Shape:
        x (...) → y (...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device.

    References:
        Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".
    """

    std: float = field(default=0.1, validator=number(0.0))

    stochastic = True

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        rng, shape = require_key(self, rng), tuple(require_dense_floating(self, params, x).shape)
        return x + random.normal(key_beside(rng, x), shape, 0.0, self.std, x.dtype), (shape, kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, *cache)

    def inference(self) -> Layer:
        return Identity()
