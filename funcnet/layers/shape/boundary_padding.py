"""Borders: padding with elements of x itself, of x (N, channels, length), (N, channels, height, width)..., or without N.

    y[i] = x[f(i)]      gx[j] = Σ gy[i] over all i with f(i) = j

with, for x[0], ..., x[n - 1] and l elements put before them,

    ReflectionPad    f(i) = i - l, mirrored at 0 and at n - 1
    ReplicationPad   f(i) = i - l, but no less than 0 and no more than n - 1
    CircularPad      f(i) = (i - l) mod n

Negative padding removes elements, as in torch: after reflection and replication, and before wrap-around.
"""

from torch import Tensor

from funcnet.contract import Shape
from funcnet.kernels.shape import padding as kernels
from funcnet.layers.shape.constant_padding import Pad
from funcnet.value import frozen


@frozen
class Reflection(Pad):
    """Padding by mirror images."""

    rule = "the padding must be below the size of each axis, and leave something of it"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.reflection(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.reflection_backward(gy, shape, pads)


@frozen
class Replication(Pad):
    """Padding by the nearest elements."""

    rule = "x must have something to repeat, and the padding must leave something of each axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.replication(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.replication_backward(gy, shape, pads)


@frozen
class Circular(Pad):
    """Padding by going around."""

    rule = "the padding must be at most what is left of each axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.circular(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.circular_backward(gy, shape, pads)


@frozen
class ReflectionPad1d(Reflection):
    """The mirror images of x at its ends around x, along the last axis.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 2, one that is not below the size of its
             axis or leaves nothing of it, and an ``x`` with other than 2 or 3 axes.
    Source   ``torch.nn.ReflectionPad1d``'s formula.
    """

    axes = 1


@frozen
class ReflectionPad2d(Reflection):
    """The mirror images of x at its ends around x, along the last 2 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 4, one that is not below the size of its
             axis or leaves nothing of it, and an ``x`` with other than 3 or 4 axes.
    Source   ``torch.nn.ReflectionPad2d``'s formula.
    """

    axes = 2


@frozen
class ReflectionPad3d(Reflection):
    """The mirror images of x at its ends around x, along the last 3 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 6, one that is not below the size of its
             axis or leaves nothing of it, and an ``x`` with other than 4 or 5 axes.
    Source   ``torch.nn.ReflectionPad3d``'s formula.
    """

    axes = 3


@frozen
class ReplicationPad1d(Replication):
    """The nearest elements of x around x, along the last axis.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 2, one that has nothing to repeat, and an
             ``x`` with other than 2 or 3 axes.
    Source   ``torch.nn.ReplicationPad1d``'s formula.
    """

    axes = 1


@frozen
class ReplicationPad2d(Replication):
    """The nearest elements of x around x, along the last 2 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 4, one that has nothing to repeat, and an
             ``x`` with other than 3 or 4 axes.
    Source   ``torch.nn.ReplicationPad2d``'s formula.
    """

    axes = 2


@frozen
class ReplicationPad3d(Replication):
    """The nearest elements of x around x, along the last 3 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 6, one that has nothing to repeat, and an
             ``x`` with other than 4 or 5 axes.
    Source   ``torch.nn.ReplicationPad3d``'s formula.
    """

    axes = 3


@frozen
class CircularPad1d(Circular):
    """x again, as if it went in a circle, around x, along the last axis.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 2, one that is above the size of its axis,
             and an ``x`` with other than 2 or 3 axes.
    Source   ``torch.nn.CircularPad1d``'s formula.
    """

    axes = 1


@frozen
class CircularPad2d(Circular):
    """x again, as if it went in a circle, around x, along the last 2 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 4, one that is above the size of its axis,
             and an ``x`` with other than 3 or 4 axes.
    Source   ``torch.nn.CircularPad2d``'s formula.
    """

    axes = 2


@frozen
class CircularPad3d(Circular):
    """x again, as if it went in a circle, around x, along the last 3 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 6, one that is above the size of its axis,
             and an ``x`` with other than 4 or 5 axes.
    Source   ``torch.nn.CircularPad3d``'s formula.
    """

    axes = 3
