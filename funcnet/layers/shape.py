"""Shape: the same numbers in another arrangement; the gradient is arranged back.

Identity   y = x                          gx = gy
Flatten    y = x, some axes made one      gx = gy, with the axes of x
"""

from attrs import field
from torch import Tensor

from funcnet.errors import whole_number
from funcnet.layer import Layer, Params, axis, frozen, no_params


@frozen
class Identity(Layer):
    """y = x, whatever x is.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for params.
    """

    def apply(self, params: Params, x: object) -> tuple[object, tuple[()]]:
        no_params(self, params)
        return x, ()

    def vjp(self, params: Params, cache: tuple[()], gy: object) -> tuple[Params, object]:
        return params, gy


@frozen
class Flatten(Layer):
    """Join the axes from ``start_dim`` to ``end_dim`` into one; without options, all but the batch axis.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` when ``x`` does not have these axes, in this order.
    """

    start_dim: int = field(default=1, validator=whole_number)
    end_dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        no_params(self, params)
        return x.flatten(axis(self, x, self.start_dim), axis(self, x, self.end_dim)), tuple(x.shape)

    def vjp(self, params: Params, cache: tuple[int, ...], gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)
