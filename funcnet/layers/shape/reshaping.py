"""Reshaping: the same elements with other axes. The gradient is reshaped back.

x (...) has any shape.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import came, check_gy, check_gys, kind_of, require_axis, require_dense, require_no_params, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, is_whole_tuple, valid_if, value_error, whole, whole_number
from funcnet.plans import Unchecked
from funcnet.value import frozen


@frozen
class Identity(Layer):
    """Return x unchanged, whatever it is.

        y  = x
        gx = gy

    Shape:
        x (...), or any tree of tensors → y as x

    Cache:
        ``x``, not copied.

    References:
        ``torch.nn.Identity``.
    """

    ensemble_mode = "elementwise"

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Any]:
        require_no_params(self, params)
        return x, x

    def vjp(self, params: Params, cache: Any, gy: Any) -> tuple[Grads, Any]:
        return params, check_gys(self, gy, cache)

    def unchecked(self, params: Params, cache: Any) -> Unchecked | None:
        return _IDENTITY


_IDENTITY = Unchecked(lambda params, x: (x, x), lambda params, cache, gy: (params, gy), lambda params, cache, gy: params)

Shaped = tuple[Shape, Tensor]
"""A cache: a shape, and an empty tensor of the dtype of y."""

Reshaped = tuple[Shape, Shape, Tensor]
"""A cache: the shapes of x and y, and an empty tensor of their dtype."""


class SingleRule(Layer):
    """Base of layers with one rule for x: the error message whenever a kernel fails."""

    __slots__ = ()

    rule: ClassVar[str]
    """The rule in words, as a format string: ``{0.dim}`` is the field ``dim`` of the layer."""

    def complaint(self, x: Any) -> str | None:
        return self.rule.format(self)


@frozen
class Reshaping(SingleRule):
    """Base of layers that change the axes of x, with ``reshaped``, and keep the order of its elements."""

    @abstractmethod
    def reshaped(self, x: Tensor) -> Tensor:
        """Return y."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Reshaped]:
        y = self.reshaped(require_dense(self, require_tensor(self, params, x)))
        return y, (tuple(x.shape), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Reshaped, gy: Tensor) -> tuple[Grads, Tensor]:
        shape, of, kind = cache
        return params, check_gy(self, gy, of, kind).reshape(shape)


@frozen
class Flatten(Reshaping):
    """Join the axes from ``start_dim`` to ``end_dim`` into one; by default all axes except the batch.

        y  = x with the axes joined
        gx = gy with the axes of x

    Args:
        start_dim: The first axis to join.
        end_dim: The last axis to join.

    Shape:
        x (N, ...) → y (N, product of the sizes) by default

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x does not have these axes, in this order.

    References:
        ``torch.nn.Flatten``.

    >>> import torch
    >>> Flatten()({}, torch.ones(2, 3, 4)).shape
    torch.Size([2, 12])
    """

    rule = "x must have the axes {0.start_dim} to {0.end_dim}"

    start_dim: int = field(default=1, validator=whole_number)
    end_dim: int = field(default=-1, validator=whole_number)

    def reshaped(self, x: Tensor) -> Tensor:
        return x.flatten(self.start_dim, self.end_dim)


_is_shape = valid_if(
    lambda got: is_whole_tuple(got, -1) and got.count(-1) <= 1 and all(n <= MOST for n in got),
    "a tuple of whole numbers below 2**31, of which one may be -1",
)


def _fill_size(layer: Layer, shape: Shape, count: int, x: Tensor) -> Shape:
    """Return ``shape`` for ``count`` elements, with the inferred size in place of -1."""
    known = math.prod([n for n in shape if n >= 0])
    filled = tuple([count // max(known, 1) if n < 0 else n for n in shape])
    if math.prod(filled) != count:
        raise value_error(layer, f"{count} elements must fill the shape {shape}", came(x))
    return filled


@frozen
class Unflatten(Reshaping):
    """Split the axis ``dim`` into several axes.

        y  = x with the axis split
        gx = gy with the axes of x

    Args:
        dim: The axis to split.
        unflattened_size: The sizes of the new axes; one of them can be -1, and is inferred.

    Shape:
        x (..., n, ...) → y (..., *unflattened_size, ...), with n their product

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has no axis ``dim`` of that size.

    References:
        ``torch.nn.Unflatten``.

    >>> import torch
    >>> Unflatten(1, (3, -1))({}, torch.ones(2, 12)).shape
    torch.Size([2, 3, 4])
    """

    rule = "x must have an axis {0.dim} that becomes {0.unflattened_size}"

    dim: int = field(validator=whole_number)
    unflattened_size: Shape = field(validator=_is_shape)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def reshaped(self, x: Tensor) -> Tensor:
        before, shape = require_axis(self, x, self.dim) % max(x.dim(), 1), tuple(x.shape)
        sizes = _fill_size(self, self.unflattened_size, math.prod(shape[before : before + 1]), x)
        return x.reshape(shape[:before] + sizes + shape[before + 1 :])


@frozen
class Reshape(Reshaping):
    """Reshape the axes after the batch.

        y  = x with the axes (batch axes, *shape)
        gx = gy with the axes of x

    Args:
        shape: The sizes of the new axes; one of them can be -1, and is inferred.
        batch_dims: Number of leading axes that stay unchanged.

    Shape:
        x (N, ...) → y (N, *shape)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has fewer than ``batch_dims`` axes, or its elements do not fill the shape.

    References:
        Haiku's ``Reshape``, where ``batch_dims`` is named ``preserve_dims``.

    >>> import torch
    >>> Reshape((2, -1))({}, torch.ones(5, 6)).shape
    torch.Size([5, 2, 3])
    """

    rule = "the elements of x must fill the shape {0.shape}"

    shape: Shape = field(validator=_is_shape)
    batch_dims: int = field(default=1, validator=whole(0))

    @property
    def batch_dependent(self) -> bool:
        return self.batch_dims == 0

    def reshaped(self, x: Tensor) -> Tensor:
        if x.dim() < self.batch_dims:
            raise value_error(self, f"x must have batch_dims={self.batch_dims} axes or more", came(x))
        shape = tuple(x.shape)
        return x.reshape(shape[: self.batch_dims] + _fill_size(self, self.shape, math.prod(shape[self.batch_dims :]), x))
