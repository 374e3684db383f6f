"""Cumulative sums, largest elements with their positions, and elements at given positions along an axis.

x (..., n, ...) has n elements along the axis ``dim``. Positions are integers, without a gradient.
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
    """Cumulative sum along the axis ``dim``.

        y[i]  = Σ x[j] over j ≤ i
        gx[i] = Σ gy[j] over j ≥ i

    Args:
        dim: The axis.

    Shape:
        x (..., n, ...) → y (..., n, ...)

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
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
    """Base of layers whose y is a pair: some elements of x along an axis, and their positions. ``ranked`` returns both."""

    @abstractmethod
    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the elements and their positions."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, Tensor], Any]:
        y, places = self.ranked(require_dense_floating(self, params, x))
        return (y, places), (places, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Any, gy: tuple[Tensor | None, Any]) -> tuple[Grads, Tensor | None]:
        places, shape, kind = cache
        if not isinstance(gy, tuple) or len(gy) != 2:
            raise value_error(self, "gy must be a pair, a gradient for the elements and None for their positions", gy)
        if gy[0] is None:
            return params, kind.new_zeros(shape)
        g = check_gy(self, gy[0], tuple(places.shape), kind)
        if len(shape) > places.dim():
            g, places = g.unsqueeze(self.dim), places.unsqueeze(self.dim)
        return params, g.new_zeros(shape).scatter(self.dim, places, g)


@frozen
class TopK(Ranked):
    """The ``k`` largest elements along an axis, and their positions.

        y, i = the k largest x, and their positions
        gx   = gy at i, 0 elsewhere

    Args:
        dim: The axis.
        k: Number of elements.
        largest: Whether to take the largest, instead of the smallest.
        sorted: Whether to return the elements in sorted order.

    Shape:
        x (..., n, ...) → (y (..., k, ...), positions (..., k, ...))

    Cache:
        The positions, the shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has fewer than ``k`` elements along the axis.

    References:
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
    """Base of ranked layers that return one element along the axis; ``keepdim`` keeps the axis with size 1."""

    keepdim: bool = field(default=False, validator=flag)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or f"x must have an element along the axis {self.dim}"


@frozen
class MaxWithIndices(OneRanked):
    """The largest element along an axis, and its position; one of equal elements gets the whole gradient.

        y, i = the largest x, and its position
        gx   = gy at i, 0 elsewhere

    Args:
        dim: The axis.
        keepdim: Whether to keep the axis, with size 1.

    Shape:
        x (..., n, ...) → (y (..., ...), positions (..., ...))

    Cache:
        The positions, the shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the axis is empty.

    References:
        ``torch.max`` with a dim.

    >>> MaxWithIndices()({}, torch.tensor([1.0, 3.0, 2.0]))
    (tensor(3.), tensor(1))
    """

    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = torch.max(x, self.dim, self.keepdim)
        return y, places


@frozen
class MinWithIndices(OneRanked):
    """The smallest element along an axis, and its position; one of equal elements gets the whole gradient.

        y, i = the smallest x, and its position
        gx   = gy at i, 0 elsewhere

    Args:
        dim: The axis.
        keepdim: Whether to keep the axis, with size 1.

    Shape:
        x (..., n, ...) → (y (..., ...), positions (..., ...))

    Cache:
        The positions, the shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the axis is empty.

    References:
        ``torch.min`` with a dim.

    >>> MinWithIndices()({}, torch.tensor([4.0, 3.0, 5.0]))
    (tensor(3.), tensor(1))
    """

    def ranked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, places = torch.min(x, self.dim, self.keepdim)
        return y, places


@frozen
class GatherElements(Along):
    """Gather elements of x along an axis, one for each position in an index.

        y[..., j, ...] = x[..., index[..., j, ...], ...]
        gx             = gy added at the positions, 0 elsewhere

    Args:
        dim: The axis to gather along.

    Shape:
        (x (..., n, ...), index (..., m, ...)) → y (..., m, ...)

    Cache:
        The index, not copied, the shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the index is not int64, or does not have the axes of x.

    References:
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
            return "x must be a pair of a floating tensor and an integer tensor"
        rule = "the index must be int64, on the device of x, with as many axes, and only the axis gathered along may be longer"
        return axis_complaint(x[0], self.dim) or rule
