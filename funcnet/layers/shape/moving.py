"""Layers that reorder or repeat the elements of x.

x (...) has any shape.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import axis_complaint, check_gy, kind_of, require_axis, require_dense, require_dense_floating, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, fields_error, is_whole_tuple, size, valid_if, whole, whole_number, whole_numbers
from funcnet.layers.activation.base import Along
from funcnet.layers.shape.reshaping import Reshaped, Shaped
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class Roll(Layer):
    """Shift x cyclically along axes: elements shifted out at one end come back in at the other.

        y[i]  = x[(i - shift) mod n]
        gx[i] = gy[(i + shift) mod n]          along each axis, of size n

    Args:
        shifts: Number of elements to shift by: one number, or one for each axis.
        dims: The axis or axes; by default x is flattened, shifted and reshaped back.

    Shape:
        x (...) → y (...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If there are not as many shifts as axes.

    References:
        ``torch.roll``.

    >>> Roll(1, 0)({}, torch.tensor([1.0, 2.0, 3.0]))
    tensor([3., 1., 2.])
    """

    shifts: Shape = field(converter=as_tuple, validator=whole_numbers())
    dims: Shape = field(default=(), converter=as_tuple, validator=valid_if(is_whole_tuple, "a whole number or a tuple of them"))

    def __attrs_post_init__(self) -> None:
        if len(self.shifts) != max(len(self.dims), 1):
            raise fields_error(self, "there must be as many shifts as dims", "shifts", "dims")

    @property
    def batch_dependent(self) -> bool:
        return not self.dims or 0 in self.dims

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        y = torch.roll(require_dense(self, require_tensor(self, params, x)), self.shifts, self.dims)
        return y, (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, torch.roll(check_gy(self, gy, *cache), [-n for n in self.shifts], self.dims)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, *self.dims)


@frozen
class Flip(Layer):
    """Reverse x along axes.

        y[i]  = x[n - 1 - i]
        gx[i] = gy[n - 1 - i]          along each axis, of size n

    Args:
        dims: The axis or axes.

    Shape:
        x (...) → y (...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x does not have these axes.

    References:
        ``torch.flip``.

    >>> Flip(-1)({}, torch.tensor([1.0, 2.0]))
    tensor([2., 1.])
    """

    dims: Shape = field(converter=as_tuple, validator=whole_numbers())

    @property
    def batch_dependent(self) -> bool:
        return 0 in self.dims

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        y = torch.flip(require_dense(self, require_tensor(self, params, x)), self.dims)
        return y, (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, torch.flip(check_gy(self, gy, *cache), self.dims)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, *self.dims) or "no axis may be named twice"


@frozen
class MoveDim(Layer):
    """Move axes to other positions; the remaining axes keep their order.

        y  = x with moved axes
        gx = gy with the axes moved back

    Args:
        source: The axis or axes to move.
        destination: Their positions in y.

    Shape:
        x (...) → y (...)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If there are not as many positions as axes.

    References:
        ``torch.movedim``.

    >>> MoveDim(1, -1)({}, torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """

    source: Shape = field(converter=as_tuple, validator=whole_numbers())
    destination: Shape = field(converter=as_tuple, validator=whole_numbers())

    def __attrs_post_init__(self) -> None:
        if len(self.source) != len(self.destination):
            raise fields_error(self, "there must be as many positions as axes", "source", "destination")

    @property
    def batch_dependent(self) -> bool:
        return 0 in self.source or 0 in self.destination

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        y = torch.movedim(require_dense(self, require_tensor(self, params, x)), self.source, self.destination)
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, torch.movedim(check_gy(self, gy, *cache), self.destination, self.source)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, *self.source, *self.destination) or "no axis may be named twice"


@frozen
class RepeatInterleave(Along):
    """Repeat each entry of an axis, with the copies next to each other.

        y[i]  = x[i // repeats]
        gx[j] = Σ gy[i] over the copies i of j

    Args:
        dim: The axis.
        repeats: Number of copies of each entry.

    Shape:
        x (..., n, ...) → y (..., repeats · n, ...)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.repeat_interleave``.

    >>> RepeatInterleave(repeats=2)({}, torch.tensor([1.0, 2.0]))
    tensor([1., 1., 2., 2.])
    """

    repeats: int = field(default=1, validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Reshaped]:
        y = torch.repeat_interleave(require_dense_floating(self, params, x), self.repeats, self.dim)
        return y, (tuple(x.shape), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Reshaped, gy: Tensor) -> tuple[Grads, Tensor]:
        shape, of, kind = cache
        g = check_gy(self, gy, of, kind)
        at = self.dim % len(shape)
        g = in_single(g.reshape(*shape[: at + 1], self.repeats, *shape[at + 1 :]))
        return params, rounded(g.sum(at + 1), kind)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or "x must have at least one axis"


@frozen
class SlidingWindow(Layer):
    """Extract sliding windows of x along an axis; a new last axis holds the entries of each window.

        y[w, ..., i] = x[step w + i]
        gx[j]        = Σ gy[w, ..., i] over all w and i with step w + i = j

    Args:
        dimension: The axis.
        size: Number of entries in a window.
        step: Number of entries from one window to the next.

    Shape:
        x (..., n, ...) → y (..., windows, ..., size)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x is shorter than a window along the axis.

    References:
        ``torch.Tensor.unfold``.

    >>> SlidingWindow(0, 2, 1)({}, torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 2.],
            [2., 3.]])
    """

    dimension: int = field(validator=whole_number)
    size: int = field(validator=size)
    step: int = field(validator=whole(1))

    @property
    def batch_dependent(self) -> bool:
        return self.dimension == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Reshaped]:
        y = require_dense_floating(self, params, x).unfold(self.dimension, self.size, self.step)
        return y, (tuple(x.shape), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Reshaped, gy: Tensor) -> tuple[Grads, Tensor]:
        shape, of, kind = cache
        g = in_single(check_gy(self, gy, of, kind))
        at = require_axis(self, g[..., 0], self.dimension) % len(shape)
        places = torch.arange(shape[at], device=g.device).unfold(0, self.size, self.step)
        g = g.movedim(-1, at + 1).flatten(at, at + 1)
        return params, rounded(g.new_zeros(shape).index_add(at, places.reshape(-1), g), kind)

    def complaint(self, x: Tensor) -> str | None:
        return (
            axis_complaint(x, self.dimension) or f"x must have size={self.size} entries or more along the axis {self.dimension}"
        )
