"""Padding with elements of x: mirror images (reflection), or copies of the outermost elements (replication).

    y[i] = x[f(i)]      gx[j] = Σ gy[i] over all i with f(i) = j

Negative padding removes elements, as in torch. Here it does so after the reflection or replication; in ``circular_padding``,
before the wrap-around.
"""

from torch import Tensor

from funcnet.contract import Shape
from funcnet.kernels.shape import padding as kernels
from funcnet.layers.shape.constant_padding import Pad
from funcnet.value import frozen


@frozen
class Reflection(Pad):
    """Base of padding with mirror images."""

    rule = "the padding must be less than the size of each axis, and must not remove all of it"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.reflection(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.reflection_backward(gy, shape, pads)


@frozen
class Replication(Pad):
    """Base of padding with copies of the outermost elements."""

    rule = "x must not be empty, and the padding must not remove a whole axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.replication(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.replication_backward(gy, shape, pads)


@frozen
class ReflectionPad1d(Reflection):
    """Pad the last axis with mirror images of x.

        y[i]  = x[f(i)]       f(i) = i - l, mirrored at 0 and n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after the last axis: a pair, or one number for both. Negative numbers
            remove elements.

    Shape:
        x (N, channels, length) or (channels, length) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding is not smaller than its axis, or removes the whole axis.

    References:
        ``torch.nn.ReflectionPad1d``.

    >>> import torch
    >>> ReflectionPad1d(2)({}, torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 2., 1., 2., 3., 2., 1.]])
    """

    axes = 1


@frozen
class ReflectionPad2d(Reflection):
    """Pad the last 2 axes with mirror images of x.

        y[i]  = x[f(i)]       f(i) = i - l, mirrored at 0 and n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 4, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (N, channels, height, width) or (channels, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding is not smaller than its axis, or removes the whole axis.

    References:
        ``torch.nn.ReflectionPad2d``.

    >>> import torch
    >>> ReflectionPad2d(1)({}, torch.ones(1, 3, 3)).shape
    torch.Size([1, 5, 5])
    """

    axes = 2


@frozen
class ReflectionPad3d(Reflection):
    """Pad the last 3 axes with mirror images of x.

        y[i]  = x[f(i)]       f(i) = i - l, mirrored at 0 and n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 6, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (N, channels, depth, height, width) or (channels, depth, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding is not smaller than its axis, or removes the whole axis.

    References:
        ``torch.nn.ReflectionPad3d``.

    >>> import torch
    >>> ReflectionPad3d(1)({}, torch.ones(1, 3, 3, 3)).shape
    torch.Size([1, 5, 5, 5])
    """

    axes = 3


@frozen
class ReplicationPad1d(Replication):
    """Pad the last axis with copies of the outermost elements of x.

        y[i]  = x[f(i)]       f(i) = i - l, at least 0 and at most n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after the last axis: a pair, or one number for both. Negative numbers
            remove elements.

    Shape:
        x (N, channels, length) or (channels, length) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If an axis is empty, or the padding removes it.

    References:
        ``torch.nn.ReplicationPad1d``.

    >>> import torch
    >>> ReplicationPad1d((1, 2))({}, torch.tensor([[1.0, 2.0]]))
    tensor([[1., 1., 2., 2., 2.]])
    """

    axes = 1


@frozen
class ReplicationPad2d(Replication):
    """Pad the last 2 axes with copies of the outermost elements of x.

        y[i]  = x[f(i)]       f(i) = i - l, at least 0 and at most n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 4, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (N, channels, height, width) or (channels, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If an axis is empty, or the padding removes it.

    References:
        ``torch.nn.ReplicationPad2d``.

    >>> import torch
    >>> ReplicationPad2d(1)({}, torch.ones(1, 3, 3)).shape
    torch.Size([1, 5, 5])
    """

    axes = 2


@frozen
class ReplicationPad3d(Replication):
    """Pad the last 3 axes with copies of the outermost elements of x.

        y[i]  = x[f(i)]       f(i) = i - l, at least 0 and at most n - 1
        gx[j] = Σ gy[i]       over all i with f(i) = j

    The formulas hold along each padded axis: n is its size, and l the number of elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 6, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (N, channels, depth, height, width) or (channels, depth, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If an axis is empty, or the padding removes it.

    References:
        ``torch.nn.ReplicationPad3d``.

    >>> import torch
    >>> ReplicationPad3d(1)({}, torch.ones(1, 3, 3, 3)).shape
    torch.Size([1, 5, 5, 5])
    """

    axes = 3
