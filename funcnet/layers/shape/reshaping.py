"""Shape: the same numbers in another arrangement; the gradient is arranged back.

Identity     y = x                                    gx = gy
Flatten      y = x, some axes made one                gx = gy, with the axes of x
Unflatten    y = x, one axis made several             gx = gy, with the axes of x
Reshape      y = x, with other axes after the batch   gx = gy, with the axes of x
Squeeze      y = x, without an axis of size 1         gx = gy, with the axes of x
Unsqueeze    y = x, with one axis more, of size 1     gx = gy, with the axes of x
Permute      y = x, its axes in another order         gx = gy, its axes in the order before
Transpose    y = x, two axes exchanged                gx = gy, the same two exchanged

x (...) is of any shape.
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
    """y = x, whatever x is.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` for params.
    Source   elementary.
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
"""A cache: a shape, and an empty tensor of the kind of y."""

Reshaped = tuple[Shape, Shape, Tensor]
"""A cache: the shapes of x and y, and an empty tensor of their kind."""


class SingleRule(Layer):
    """A layer with a single rule for x, which is its whole complaint when a kernel fails."""

    __slots__ = ()

    rule: ClassVar[str]
    """The rule in words, as a format string: ``{0.dim}`` is the field ``dim`` of the layer."""

    def complaint(self, x: Any) -> str | None:
        return self.rule.format(self)


@frozen
class _Reshaping(SingleRule):
    """A layer that keeps the elements of x in their order; ``reshaped`` gives them other axes."""

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
class Flatten(_Reshaping):
    """Join the axes from ``start_dim`` to ``end_dim`` into one; without options, all but the batch axis.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` when ``x`` does not have these axes, in this order.
    Source   ``torch.nn.Flatten``'s formula.
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


def _filled(layer: Layer, shape: Shape, count: int, x: Tensor) -> Shape:
    """Return the shape of ``count`` elements, with the size that the others leave in the place of -1."""
    known = math.prod([n for n in shape if n >= 0])
    filled = tuple([count // max(known, 1) if n < 0 else n for n in shape])
    if math.prod(filled) != count:
        raise value_error(layer, f"{count} elements must fill the shape {shape}", came(x))
    return filled


@frozen
class Unflatten(_Reshaping):
    """Make several axes of the axis ``dim``; one of their sizes may be -1, for what the others leave.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` for sizes that are not whole numbers, and when ``x`` has no axis ``dim`` of their product.
    Source   ``torch.nn.Unflatten``'s formula.
    """

    rule = "x must have an axis {0.dim} that becomes {0.unflattened_size}"

    dim: int = field(validator=whole_number)
    unflattened_size: Shape = field(validator=_is_shape)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def reshaped(self, x: Tensor) -> Tensor:
        before, shape = require_axis(self, x, self.dim) % max(x.dim(), 1), tuple(x.shape)
        sizes = _filled(self, self.unflattened_size, math.prod(shape[before : before + 1]), x)
        return x.reshape(shape[:before] + sizes + shape[before + 1 :])


@frozen
class Reshape(_Reshaping):
    """Give the axes after the first the shape ``shape``, where one size may be -1; ``batch_dims`` axes stay as they are.

    >>> import torch
    >>> Reshape((2, -1))({}, torch.ones(5, 6)).shape
    torch.Size([5, 2, 3])

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` for sizes that are not whole numbers, and when ``x`` has fewer axes than ``batch_dims``, or elements
             that do not fill the shape.
    Source   Haiku's ``Reshape``, whose ``preserve_dims`` is ``batch_dims``.
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
        return x.reshape(shape[: self.batch_dims] + _filled(self, self.shape, math.prod(shape[self.batch_dims :]), x))


@frozen
class Squeeze(_Reshaping):
    """Remove the axis ``dim`` if its size is 1; otherwise return x unchanged, as ``torch.squeeze`` does.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``.
    Source   elementary.
    """

    rule = "x must have an axis {0.dim}"

    dim: int = field(validator=whole_number)

    def reshaped(self, x: Tensor) -> Tensor:
        return x.squeeze(self.dim)


@frozen
class Unsqueeze(_Reshaping):
    """Put in an axis of size 1 that becomes the axis ``dim``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` when ``x`` has too few axes for that.
    Source   elementary.
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
    """Put the axes in the order ``dims``, as ``torch.permute``: all axes are named, the batch axis too, by 0.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` for ``dims`` that do not name each axis once, and when ``x`` has another number of axes.
    Source   elementary.
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
    """Exchange the axes ``dim0`` and ``dim1``, as ``torch.transpose``.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` does not have these axes.
    Source   elementary.
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
