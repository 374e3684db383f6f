"""Global pooling: one window over all axes after the channels.

x (N, channels, ...), y (N, channels); m is the number of elements of a channel. A batch axis is required.
"""

import math

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, kind_of, require_dense_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import flag
from funcnet.kernels.index_pooling import scatter_to_index
from funcnet.value import frozen


@frozen
class _Global(Layer):
    """Base of pooling over all axes after the channels."""

    keepdim: bool = field(default=False, validator=flag)

    def complaint(self, x: Tensor) -> str | None:
        rule = "x must have the axes (N, channels, ...), with one or more after the channels"
        return floating_complaint(x) or (rule if x.dim() < 3 else None)

    def _pooled_axes(self, params: Params, x: Tensor) -> Shape:
        """Return the axes after the channels."""
        if require_dense_floating(self, params, x).dim() < 3:
            raise Misfit  # with an empty tuple of axes, torch would reduce all axes
        return tuple(range(2, x.dim()))

    def _column(self, gy: Tensor, shape: Shape, kind: Tensor) -> Tensor:
        """Return gy as (N, channels, 1)."""
        want = (*shape[:2], *[1] * (len(shape) - 2)) if self.keepdim else shape[:2]
        return check_gy(self, gy, want, kind).reshape(*shape[:2], 1)


@frozen
class GlobalAvgPool(_Global):
    """Mean over all axes after the channels.

        y  = Σ x / m
        gx = gy / m

    Args:
        keepdim: Whether y keeps the reduced axes, with size 1.

    Shape:
        x (N, channels, ...) → y (N, channels), or (N, channels, 1, ...) with ``keepdim``.

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device.

    Raises:
        ValueError: If x has no axis after the channels.

    References:
        Lin, Chen & Yan 2014, "Network in network", section 3.2.

    >>> import torch
    >>> GlobalAvgPool()({}, torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        return x.mean(axes, self.keepdim), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g, (shape, _) = self._column(gy, *cache), cache
        return params, (g / math.prod(shape[2:])).reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)


@frozen
class GlobalSumPool(_Global):
    """Sum over all axes after the channels.

        y  = Σ x
        gx = gy

    Args:
        keepdim: Whether y keeps the reduced axes, with size 1.

    Shape:
        x (N, channels, ...) → y (N, channels), or (N, channels, 1, ...) with ``keepdim``.

    Cache:
        The shape of ``x``, and an empty tensor of its dtype and device.

    Raises:
        ValueError: If x has no axis after the channels.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        return x.sum(axes, self.keepdim), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g, (shape, _) = self._column(gy, *cache), cache
        return params, g.reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)


@frozen
class GlobalMaxPool(_Global):
    """Largest element over all axes after the channels.

        y  = max x
        gx = gy at the first maximum, else 0

    Args:
        keepdim: Whether y keeps the reduced axes, with size 1.

    Shape:
        x (N, channels, ...) → y (N, channels), or (N, channels, 1, ...) with ``keepdim``.

    Cache:
        The index of the maximum in the flattened axes, the shape of ``x``, and an empty tensor of its dtype and device.

    Raises:
        ValueError: If x has no axis after the channels, or an empty one.
    """

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Tensor:
        return x.amax(self._pooled_axes(params, x), self.keepdim)  # on 64×16×28×28, a twentieth of the time that indices take

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Tensor]]:
        axes = self._pooled_axes(params, x)
        y, index = x.flatten(2).max(2, keepdim=True)
        return y.reshape(*y.shape[:2], *[1] * len(axes) * self.keepdim), (index, tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        index, shape, kind = cache
        return params, scatter_to_index(self._column(gy, shape, kind), index, (math.prod(shape[2:]),)).reshape(shape)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or ("x must have no empty axis after the channels" if 0 in x.shape[2:] else None)
