"""Rescale: a fixed affine map, the same for every element.

y and gx have the shape of x, (...).
"""

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_dense_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import number
from funcnet.value import frozen


@frozen
class Rescale(Layer):
    """Multiply every element by a constant, and add a constant.

        y  = scale · x + offset
        gx = scale · gy

    ``Rescale(1 / 255)`` maps the bytes of an image to [0, 1]. ``Scale`` and ``Bias`` are the learned counterparts.

    Args:
        scale: Factor of every element.
        offset: Constant added to the product.

    Shape:
        x (...) → y (...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device.

    >>> Rescale(2.0, -1.0)({}, Tensor([0.0, 0.5, 1.0]))
    tensor([-1.,  0.,  1.])
    """

    ensemble_mode = "elementwise"

    scale: float = field(default=1.0, validator=number())
    offset: float = field(default=0.0, validator=number())

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        y = require_dense_floating(self, params, x) * self.scale
        return y + self.offset if self.offset else y, (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, *cache) * self.scale
