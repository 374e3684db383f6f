"""Rearranging: a layer that gets x with its axes in other places, or with several as one; views wherever that is possible.

channels_last   M x = x, its last axis at the place of the channels
map_over        M x = x, its leading axes as one

y = M⁻¹ f(p, M x)      gp, gx = gp, M⁻¹ g  where gp, g = f's vjp of M gy
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
    """A layer on tensors whose channels are the last axis; made by ``channels_last``.

    Params   the layer's.
    Cache    a pair, the layer's and ().
    Raises   ``ValueError`` for an ``x`` without an axis ``dim``; the layer's own errors, which speak of the x it gets, a note.
    """

    layer: Layer = field(validator=layers_only)
    dim: int = field(default=1, validator=whole(0))

    @property
    def label(self) -> str:
        return f"channels_last, which hands on x with its last axis as axis {self.dim}"

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
    """Apply a layer, or a net, for (N, channels, ...) to an x of shape (N, ..., channels), and return y in the same order.

    ``channels_last(serial(Conv2d(3, 8, 3), BatchNorm2d(8), MaxPool2d(2)))`` takes and returns (N, height, width, channels). The
    last axis of every tensor of x moves to axis ``dim``, where the layer expects the channels, and axis ``dim`` of every tensor
    of y moves to the end. Both are views: nothing is copied if the kernels accept any memory order, as those of convolution and
    pooling do. ``dim`` is 1 with a batch axis, and 0 without one; it cannot be inferred from the shape.
    ``channels_last(Conv2d(3, 8, 3), 0)`` takes one (height, width, channels). A y without an axis ``dim``, or of shape
    (N, features), is returned unchanged. Params and random draws are the same as the layer's.
    """
    return ChannelsLast(layer, dim)


@frozen
class MapOver(Rearranging):
    """A layer on a batch whose axis is the first ``axes`` axes of x, as one; made by ``map_over`` or ``time_distributed``.

    Params   the layer's.
    Cache    a pair, the layer's and the sizes of the axes.
    Raises   ``ValueError`` when ``x`` does not have the axes; the layer's own errors get a note.
    """

    label = "map_over"

    layer: Layer = field(validator=layers_only)
    axes: int = field(default=2, validator=size)

    def enter(self, values: Any) -> Any:
        return tree.map(lambda leaf: leaf.flatten(0, self.axes - 1), values)

    def leave(self, values: Any, context: Shape) -> Any:
        return tree.map(lambda leaf: leaf.reshape(*context, *leaf.shape[1:]), values)

    def context(self, x: Any) -> Shape:
        """Return the sizes of the axes that are made one."""
        sizes: list[Shape] = [tuple(leaf.shape[: self.axes]) if isinstance(leaf, Tensor) else () for leaf in tree.leaves(x)]
        if not sizes or any([one != sizes[0] or len(one) < self.axes for one in sizes]):  # noqa: C419
            rule = f"x must have {self.axes} leading axes, the same in all its parts"
            raise value_error("map_over", rule, describe(x))
        return sizes[0]

    def __repr__(self) -> str:
        return f"map_over({self.layer!r}{'' if self.axes == 2 else f', {self.axes}'})"


def map_over(layer: Layer, axes: int = 2) -> MapOver:
    """Give a layer the first ``axes`` axes of x as its one batch axis, and split them again after it."""
    return MapOver(layer, axes)


@adds_location("time_distributed")
def time_distributed(layer: Layer) -> MapOver:
    """Apply a layer at every step of (N, T, ...) or (T, N, ...), all at once: ``map_over(layer, 2)``."""
    return MapOver(layer, 2)
