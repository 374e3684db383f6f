"""Rearranging: a layer that gets x with moved or merged axes, as a view if possible.

    y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g

    channels_last   M moves the last axis to the position of the channels
    map_over        M merges the leading axes into one

Params and their paths are the layer's.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.combinator import layers_only
from funcnet.contract import Layer, Shape
from funcnet.errors import adds_location, describe, size, value_error, whole
from funcnet.value import frozen
from funcnet.wrapper import Rearranging


@frozen
class ChannelsLast(Rearranging):
    """A layer for tensors whose last axis is the channels; made by ``channels_last``.

        y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M moves the last axis to ``dim``

    Args:
        layer: The layer f.
        dim: Axis of the channels in f.

    Params:
        The layer's params.

    Cache:
        A pair: the layer's cache and ``()``.

    Raises:
        ValueError: If x has no axis ``dim``.
    """

    layer: Layer = field(validator=layers_only)
    dim: int = field(default=1, validator=whole(0))

    @property
    def label(self) -> str:
        return f"channels_last, which moves the last axis of x to axis {self.dim}"

    def enter(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.movedim(-1, self.dim) if leaf.dim() > self.dim else leaf, values)

    def leave(self, values: Any, context: Any) -> Any:
        return tree.map(lambda leaf: leaf.movedim(self.dim, -1) if leaf.dim() > self.dim else leaf, values)

    def context(self, x: Any) -> Any:
        for leaf in tree.leaves(x):
            if not isinstance(leaf, Tensor) or leaf.dim() <= self.dim:
                raise value_error(self, f"x must have an axis {self.dim}", describe(leaf))
        return ()

    def __repr__(self) -> str:
        return f"channels_last({self.layer!r}{'' if self.dim == 1 else f', {self.dim}'})"


def channels_last(layer: Layer, dim: int = 1) -> ChannelsLast:
    """Apply a layer for (N, channels, ...) to an x of shape (N, ..., channels), and return y in the same order.

        y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M moves the last axis to ``dim``

    ``channels_last(serial(Conv2d(3, 8, 3), BatchNorm2d(8), MaxPool2d(2)))`` takes and returns (N, height, width, channels). M and
    M⁻¹ act on every tensor of x and y. Both are views: nothing is copied if the kernels accept any memory order, like the kernels
    of convolution and pooling. A y without an axis ``dim``, or of shape (N, features), is returned unchanged. Params and random
    draws are the same as the layer's.

    Args:
        layer: The layer or net f.
        dim: Axis of the channels in f: 1 with a batch axis, 0 without one, as in ``channels_last(Conv2d(3, 8, 3), 0)`` for one
            (height, width, channels). It cannot be inferred from the shape.

    Shape:
        x (N, ..., channels) → y (N, ..., channels').

    Params:
        The layer's params.

    Cache:
        A pair: the layer's cache and ``()``.

    Raises:
        ValueError: If x has no axis ``dim``.

    >>> import torch
    >>> from funcnet.layers.conv.conv import Conv2d
    >>> net = channels_last(Conv2d(3, 8, 3))
    >>> net(net.init(0), torch.ones(2, 28, 28, 3)).shape
    torch.Size([2, 26, 26, 8])
    """
    return ChannelsLast(layer, dim)


@frozen
class MapOver(Rearranging):
    """A layer whose batch axis is the first ``axes`` axes of x, merged; made by ``map_over`` and ``time_distributed``.

        y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M merges the leading axes

    Args:
        layer: The layer f.
        axes: Number of leading axes to merge.

    Params:
        The layer's params.

    Cache:
        A pair: the layer's cache and the sizes of the axes.

    Raises:
        ValueError: If the tensors of x do not share these axes.
    """

    label = "map_over"

    layer: Layer = field(validator=layers_only)
    axes: int = field(default=2, validator=size)

    def enter(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.flatten(0, self.axes - 1), values)

    def leave(self, values: Any, context: Shape) -> Any:
        return tree.map(lambda leaf: leaf.reshape(*context, *leaf.shape[1:]), values)

    def context(self, x: Any) -> Shape:
        """Return the sizes of the merged axes."""
        sizes: list[Shape] = [tuple(leaf.shape[: self.axes]) if isinstance(leaf, Tensor) else () for leaf in tree.leaves(x)]
        if not sizes or any([one != sizes[0] or len(one) < self.axes for one in sizes]):  # noqa: C419
            rule = f"x must have {self.axes} leading axes, the same in all its parts"
            raise value_error("map_over", rule, describe(x))
        return sizes[0]

    def __repr__(self) -> str:
        return f"map_over({self.layer!r}{'' if self.axes == 2 else f', {self.axes}'})"


def map_over(layer: Layer, axes: int = 2) -> MapOver:
    """Merge the first ``axes`` axes of x into one batch axis for a layer, and split them again in its output.

        y = M⁻¹ f(p, M x)      gp, g = f.vjp(p, c, M gy)      gx = M⁻¹ g      M merges the leading axes

    Args:
        layer: The layer f.
        axes: Number of leading axes to merge.

    Shape:
        x (*axes, ...) → y (*axes, ...).

    Params:
        The layer's params.

    Cache:
        A pair: the layer's cache and the sizes of the merged axes.

    Raises:
        ValueError: If the tensors of x do not share these axes.

    >>> import torch
    >>> from funcnet.layers.conv.conv import Conv2d
    >>> net = map_over(Conv2d(1, 4, 3))
    >>> net(net.init(0), torch.ones(2, 5, 1, 8, 8)).shape
    torch.Size([2, 5, 4, 6, 6])
    """
    return MapOver(layer, axes)


@adds_location("time_distributed")
def time_distributed(layer: Layer) -> MapOver:
    """Apply a layer at every step of a sequence, (N, T, ...) or (T, N, ...), all at once.

        y[n, t] = f(p, x[n, t])      gx[n, t] = gradient of f there, from gy[n, t]      gp = Σ over n and t

    It is ``map_over(layer, 2)``.

    Args:
        layer: The layer f.

    Shape:
        x (N, T, ...) → y (N, T, ...).

    Params:
        The layer's params.

    Cache:
        A pair: the layer's cache and the sizes of the first two axes.

    >>> import torch
    >>> from funcnet.layers.shape.reshaping import Flatten
    >>> time_distributed(Flatten())({}, torch.ones(2, 5, 8, 8)).shape
    torch.Size([2, 5, 64])
    """
    return MapOver(layer, 2)
