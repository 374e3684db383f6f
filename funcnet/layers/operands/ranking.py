"""Orders along an axis: sums from the start on, the largest elements with their places, and elements by their places.

CumSum          y[i] = Σ x[j], j ≤ i                              gx[i] = Σ gy[j], j ≥ i
TopK            y, i = the k largest x, and their places          gx = gy at i, else 0
MaxWithIndices  y, i = the largest x, and its place               gx = gy at i, else 0
MinWithIndices  y, i = the smallest x, and its place              gx = gy at i, else 0
GatherElements  y = x[i] along the axis, i for each element       gx = 0, with gy added at i

x (..., n, ...) has n elements along the axis ``dim``. Places are integers, without a gradient.
"""

from abc import abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import (
    Misfit,
    axis_complaint,
    check_gy,
    floating_complaint,
    kind_of,
    require_dense,
    require_dense_floating,
    require_no_params,
)
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import flag, size, value_error
from funcnet.layers.activation.base import Along
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class CumSum(Along):
    """Sums of all elements up to each, along the axis ``dim``.

    Args:
        dim: The axis, by default the last.

    Shape:
        x (..., n, ...) → y (..., n, ...)

    Params:
        None.

    Cache:
        The shape of ``x``, and an empty tensor of its kind.

    Raises:
        ValueError: When x is no floating tensor or has no axis ``dim``.

    Source:
        ``torch.cumsum``.

    >>> CumSum()({}, torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        y = torch.cumsum(in_single(require_dense_floating(self, params, x)), self.dim)
        return rounded(y, x), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g = in_single(check_gy(self, gy, *cache))
        if not g.dim():
            return params, gy
        return params, rounded(torch.cumsum(g.flip(self.dim), self.dim).flip(self.dim), gy)


@frozen
class Ranked(Along):
    """A layer whose y is a pair: some elements of x along an axis, and their places. ``ranked`` gives both."""

    @abstractmethod
    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return elements and places."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, Tensor], Any]:
        y, places = self.ranked(require_dense_floating(self, params, x))
        return (y, places), (places, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Any, gy: tuple[Tensor | None, Any]) -> tuple[Grads, Tensor | None]:
        places, shape, kind = cache
        if not isinstance(gy, tuple) or len(gy) != 2:
            raise value_error(self, "gy must be a pair, for the elements and for their places, the second None", gy)
        if gy[0] is None:
            return params, kind.new_zeros(shape)
        g = check_gy(self, gy[0], tuple(places.shape), kind)
        if len(shape) > places.dim():
            g, places = g.unsqueeze(self.dim), places.unsqueeze(self.dim)
        return params, g.new_zeros(shape).scatter(self.dim, places, g)


@frozen
class TopK(Ranked):
    """The ``k`` largest elements along an axis and their places, as ``torch.topk``.

    Args:
        k: How many.
        dim: The axis, by default the last.
        largest: ``False`` for the smallest.
        sorted: Whether they are in order.

    Shape:
        x (..., n, ...) → y ((..., k, ...), places (..., k, ...))

    Params:
        None.

    Cache:
        The places, the shape of ``x``, and an empty tensor of its kind.

    Raises:
        ValueError: When x is no floating tensor, or has fewer elements along the axis.

    Source:
        ``torch.topk``.

    >>> TopK(k=2)({}, torch.tensor([1.0, 3.0, 2.0]))[0]
    tensor([3., 2.])
    """

    k: int = field(default=1, validator=size)
    largest: bool = field(default=True, validator=flag)
    sorted: bool = field(default=True, validator=flag)

    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = torch.topk(x, self.k, self.dim, self.largest, self.sorted)
        return y, places

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or f"x must have k={self.k} elements or more along the axis {self.dim}"


@frozen
class OneRanked(Ranked):
    """A ranked layer with one element along the axis, which ``keepdim`` keeps with size 1."""

    keepdim: bool = field(default=False, validator=flag)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or f"x must have an element along the axis {self.dim}"


@frozen
class MaxWithIndices(OneRanked):
    """The largest element along an axis and its place, as ``torch.max`` with a dim: of equal ones one has all the gradient.

    Args:
        dim: The axis, by default the last.
        keepdim: Whether the axis stays, with size 1.

    Shape:
        x (..., n, ...) → y ((...), places (...))

    Params:
        None.

    Cache:
        The places, the shape of ``x``, and an empty tensor of its kind.

    Raises:
        ValueError: When x is no floating tensor, or has no element along the axis.

    Source:
        ``torch.max``.

    >>> MaxWithIndices()({}, torch.tensor([1.0, 3.0, 2.0]))
    (tensor(3.), tensor(1))
    """

    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = torch.max(x, self.dim, self.keepdim)
        return y, places


@frozen
class MinWithIndices(OneRanked):
    """The smallest element along an axis and its place, as ``torch.min`` with a dim: of equal ones one has all the gradient.

    Args:
        dim: The axis, by default the last.
        keepdim: Whether the axis stays, with size 1.

    Shape:
        x (..., n, ...) → y ((...), places (...))

    Params:
        None.

    Cache:
        The places, the shape of ``x``, and an empty tensor of its kind.

    Raises:
        ValueError: When x is no floating tensor, or has no element along the axis.

    Source:
        ``torch.min``.

    >>> MinWithIndices()({}, torch.tensor([4.0, 3.0, 5.0]))
    (tensor(3.), tensor(1))
    """

    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = torch.min(x, self.dim, self.keepdim)
        return y, places


@frozen
class GatherElements(Along):
    """The elements of x at the places in an index, one for each element of the index, as ``torch.gather``.

    Args:
        dim: The axis that the index counts along, by default the last.

    Shape:
        x (x (..., n, ...), index (..., m, ...)) → y (..., m, ...)

    Params:
        None.

    Cache:
        The index, the shape of ``x``, and an empty tensor of its kind.

    Raises:
        ValueError: When x is not a pair of a floating tensor and an int64 one with as many axes.

    Source:
        ``torch.gather``.

    >>> GatherElements()({}, (torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 1, 0]])))
    tensor([[2., 2., 1.]])
    """

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        if not isinstance(x, tuple) or len(x) != 2 or floating_complaint(x[0]) or x[0].is_cpu is not x[1].is_cpu:
            raise Misfit
        return torch.gather(require_dense(self, x[0]), self.dim, x[1]), (x[1], tuple(x[0].shape), kind_of(x[0]))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Tensor, None]]:
        index, shape, kind = cache
        g = in_single(check_gy(self, gy, tuple(index.shape), kind))
        return params, (rounded(g.new_zeros(shape).scatter_add(self.dim, index, g), gy), None)

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or len(x) != 2 or floating_complaint(x[0]) or not isinstance(x[1], Tensor):
            return "x must be a pair of a floating tensor and one of integers"
        rule = "the index must be of int64, on the device of x, with as many axes, none longer but that gathered along"
        return axis_complaint(x[0], self.dim) or rule
