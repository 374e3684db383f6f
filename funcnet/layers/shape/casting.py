"""Conversion of the dtype, for example of image bytes to floating numbers.

x (...) has any shape.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_dense, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import valid_if, value_error
from funcnet.value import frozen


@frozen
class Cast(Layer):
    """Convert floating numbers, integers or booleans to a floating ``dtype``.

        y  = x, rounded to ``dtype``
        gx = gy in the dtype of x; ``None`` for integers and booleans

    ``serial(Cast(torch.float32), Rescale(1 / 255), Conv2d(3, 8, 3))`` accepts images as bytes.

    Args:
        dtype: The floating dtype of y.

    Shape:
        x (...) → y (...), of any shape

    Cache:
        The shape of ``x``, and empty tensors of the dtypes of x and y.

    Raises:
        ValueError: If ``dtype`` is not floating, or x is complex.

    References:
        ``torch.Tensor.to``.

    >>> Cast(torch.float64)({}, torch.tensor([1, 2]))
    tensor([1., 2.], dtype=torch.float64)
    """

    dtype: torch.dtype = field(
        validator=valid_if(lambda got: isinstance(got, torch.dtype) and got.is_floating_point, "a floating dtype")
    )

    @property
    def output_dtype(self) -> torch.dtype:
        return self.dtype

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor, Tensor]]:
        if require_dense(self, require_tensor(self, params, x)).is_complex():
            raise value_error(self, "x must be a tensor of real numbers", x)
        y = x.to(self.dtype)
        return y, (tuple(x.shape), kind_of(x), kind_of(y))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor | None]:
        shape, kind, like = cache
        g = check_gy(self, gy, shape, like)
        return params, g.to(kind.dtype) if kind.is_floating_point() else None
