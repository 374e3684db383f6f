"""Layers that remove, insert, permute or swap axes.

x (...) has any shape.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_dense, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import is_whole_tuple, valid_if, whole_number
from funcnet.layers.shape.reshaping import Reshaping, Shaped, SingleRule
from funcnet.value import frozen


@frozen
class Squeeze(Reshaping):
    """Remove the axis ``dim`` if its size is 1; otherwise return x unchanged.

        y  = x without the axis
        gx = gy with the axes of x

    Args:
        dim: The axis to remove.

    Shape:
        x (..., 1, ...) → y (..., ...)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.squeeze``.

    >>> import torch
    >>> Squeeze(1)({}, torch.ones(2, 1, 3)).shape
    torch.Size([2, 3])
    """

    rule = "x must have an axis {0.dim}"

    dim: int = field(validator=whole_number)

    def reshaped(self, x: Tensor) -> Tensor:
        return x.squeeze(self.dim)


@frozen
class Unsqueeze(Reshaping):
    """Insert an axis of size 1 at ``dim``.

        y  = x with one more axis
        gx = gy with the axes of x

    Args:
        dim: The position of the new axis in y.

    Shape:
        x (..., ...) → y (..., 1, ...)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has too few axes.

    References:
        ``torch.unsqueeze``.

    >>> import torch
    >>> Unsqueeze(1)({}, torch.ones(2, 3)).shape
    torch.Size([2, 1, 3])
    """

    rule = "x must have room for an axis {0.dim}"

    dim: int = field(validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def reshaped(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.dim)


def _is_permutation(dims: Any) -> bool:
    return is_whole_tuple(dims) and sorted([d % len(dims) for d in dims]) == [*range(len(dims))]


@frozen
class Permute(Layer):
    """Permute the axes of x into the order ``dims``.

        y  = x with permuted axes
        gx = gy with the axes permuted back

    Args:
        dims: The axes of x in their new order, all of them, including the batch axis 0.

    Shape:
        x (...) → y (...); axis i of y is axis dims[i] of x

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If ``dims`` does not name each axis of x once.

    References:
        ``torch.permute``.

    >>> import torch
    >>> Permute((0, 2, 1))({}, torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """

    dims: Shape = field(validator=valid_if(_is_permutation, "a tuple that names each axis once"))

    @property
    def batch_dependent(self) -> bool:
        return bool(self.dims) and self.dims[0] % len(self.dims) != 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        y = require_dense(self, require_tensor(self, params, x)).permute(self.dims)
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        places = [d % len(self.dims) for d in self.dims]
        return params, check_gy(self, gy, *cache).permute([places.index(i) for i in range(len(places))])

    def complaint(self, x: Tensor) -> str:
        return f"x must have {len(self.dims)} axes"


@frozen
class Transpose(SingleRule):
    """Swap the axes ``dim0`` and ``dim1``.

        y  = x with the two axes swapped
        gx = gy with the same axes swapped

    Args:
        dim0: One axis.
        dim1: The other axis.

    Shape:
        x (..., m, ..., n, ...) → y (..., n, ..., m, ...)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x does not have these axes.

    References:
        ``torch.transpose``.

    >>> import torch
    >>> Transpose(1, 2)({}, torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """

    rule = "x must have the axes {0.dim0} and {0.dim1}"

    dim0: int = field(validator=whole_number)
    dim1: int = field(validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return 0 in (self.dim0, self.dim1)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        y = require_dense(self, require_tensor(self, params, x)).transpose(self.dim0, self.dim1)
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, *cache).transpose(self.dim0, self.dim1)
