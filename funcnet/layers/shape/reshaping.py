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
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import require_axis, require_no_params, require_tensor
from funcnet.contract import Layer, Params, Rng, Shape
from funcnet.errors import is_whole, value_error, whole, whole_number
from funcnet.value import frozen


@frozen
class Identity(Layer):
    """y = x, whatever x is.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for params.
    Source   elementary.
    """

    ensemble_mode = "elementwise"

    def apply(self, params: Params, x: object, rng: Rng = None) -> tuple[object, tuple[()]]:
        require_no_params(self, params)
        return x, ()

    def vjp(self, params: Params, cache: tuple[()], gy: object) -> tuple[Params, object]:
        return params, gy


@frozen
class Flatten(Layer):
    """Join the axes from ``start_dim`` to ``end_dim`` into one; without options, all but the batch axis.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` when ``x`` does not have these axes, in this order.
    Source   ``torch.nn.Flatten``'s formula.
    """

    start_dim: int = field(default=1, validator=whole_number)
    end_dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[int, ...]]:
        require_tensor(self, params, x)
        return x.flatten(require_axis(self, x, self.start_dim), require_axis(self, x, self.end_dim)), tuple(x.shape)

    def vjp(self, params: Params, cache: tuple[int, ...], gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)


def _sizes(layer: Any, attribute: Any, got: Any) -> None:
    """Validate a shape: whole numbers of at least 0, of which one may be -1, for what the others leave."""
    right = isinstance(got, tuple) and all(is_whole(n) and n >= -1 for n in got) and got.count(-1) <= 1
    if not right:
        name = f"{type(layer).__name__}: {attribute.name}"
        raise ValueError(f"{name} must be a tuple of whole numbers, of which one may be -1, got {got!r}")


def _filled(layer: Layer, shape: Shape, count: int, x: Tensor) -> Shape:
    """Put what the other sizes leave of ``count`` elements in the place of -1."""
    known = math.prod([n for n in shape if n >= 0])
    filled = tuple([count // max(known, 1) if n < 0 else n for n in shape])
    if math.prod(filled) != count:
        raise value_error(layer, f"{count} elements must fill the shape {shape}", f"x of shape {tuple(x.shape)}")
    return filled


@frozen
class Unflatten(Layer):
    """Make several axes of the axis ``dim``; one of their sizes may be -1, for what the others leave.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for sizes that are not whole numbers, and when ``x`` has no axis ``dim`` of their product.
    Source   ``torch.nn.Unflatten``'s formula.
    """

    dim: int = field(validator=whole_number)
    unflattened_size: Shape = field(validator=_sizes)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        require_tensor(self, params, x)
        before, shape = require_axis(self, x, self.dim) % max(x.dim(), 1), tuple(x.shape)
        sizes = _filled(self, self.unflattened_size, math.prod(shape[before : before + 1]), x)
        return x.reshape(shape[:before] + sizes + shape[before + 1 :]), shape

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)


@frozen
class Reshape(Layer):
    """Give the axes after the first the shape ``shape``, where one size may be -1; ``batch_dims`` axes stay as they are.

    >>> import torch
    >>> Reshape((2, -1))({}, torch.ones(5, 6)).shape
    torch.Size([5, 2, 3])

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for sizes that are not whole numbers, and when ``x`` has fewer axes than ``batch_dims``, or elements
             that do not fill the shape.
    Source   Haiku's ``Reshape``, whose ``preserve_dims`` is ``batch_dims``.
    """

    shape: Shape = field(validator=_sizes)
    batch_dims: int = field(default=1, validator=whole(0))

    @property
    def batch_dependent(self) -> bool:
        return self.batch_dims == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        require_tensor(self, params, x)
        if x.dim() < self.batch_dims:
            raise value_error(self, f"x must have batch_dims={self.batch_dims} axes or more", f"x of shape {tuple(x.shape)}")
        shape = tuple(x.shape)
        batch, rest = shape[: self.batch_dims], shape[self.batch_dims :]
        return x.reshape(batch + _filled(self, self.shape, math.prod(rest), x)), shape

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)


@frozen
class Squeeze(Layer):
    """Take the axis ``dim`` away where its size is 1; as ``torch.squeeze``, leave x as it is where it is not.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` when ``x`` has no axis ``dim``.
    Source   elementary.
    """

    dim: int = field(validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        require_tensor(self, params, x)
        return x.squeeze(require_axis(self, x, self.dim)), tuple(x.shape)

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)


@frozen
class Unsqueeze(Layer):
    """Put in an axis of size 1 that becomes the axis ``dim``.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` when ``x`` has too few axes for that.
    Source   elementary.
    """

    dim: int = field(validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        require_tensor(self, params, x)
        if not -x.dim() - 1 <= self.dim <= x.dim():
            raise value_error(self, f"x must have room for an axis {self.dim}", f"x of shape {tuple(x.shape)}")
        return x.unsqueeze(self.dim), tuple(x.shape)

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.reshape(cache)


def _order(layer: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, tuple) or not all(map(is_whole, got)) or sorted(d % len(got) for d in got) != [*range(len(got))]:
        raise ValueError(f"Permute: dims must be a tuple that names each axis once, got {got!r}")


@frozen
class Permute(Layer):
    """Put the axes in the order ``dims``, as ``torch.permute``: all axes are named, the batch axis too, by 0.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for ``dims`` that do not name each axis once, and when ``x`` has another number of axes.
    Source   elementary.
    """

    dims: Shape = field(validator=_order)

    @property
    def batch_dependent(self) -> bool:
        return bool(self.dims) and self.dims[0] % len(self.dims) != 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        require_tensor(self, params, x)
        if x.dim() != len(self.dims):
            raise value_error(self, f"x must have {len(self.dims)} axes", f"x of shape {tuple(x.shape)}")
        return x.permute(self.dims), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        places = [d % len(self.dims) for d in self.dims]
        return params, gy.permute([places.index(i) for i in range(len(places))])


@frozen
class Transpose(Layer):
    """Exchange the axes ``dim0`` and ``dim1``, as ``torch.transpose``.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` when ``x`` does not have these axes.
    Source   elementary.
    """

    dim0: int = field(validator=whole_number)
    dim1: int = field(validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return 0 in (self.dim0, self.dim1)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        require_tensor(self, params, x)
        return x.transpose(require_axis(self, x, self.dim0), require_axis(self, x, self.dim1)), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy.transpose(self.dim0, self.dim1)
