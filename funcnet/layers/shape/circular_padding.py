"""Wrap-around padding: x continues at its ends as if it were periodic.

    y[i] = x[(i - l) mod n]      gx[j] = Σ gy[i] over all i with (i - l) mod n = j

Negative padding removes elements first, as in torch.
"""

from torch import Tensor

from funcnet.contract import Shape
from funcnet.kernels.shape import padding as kernels
from funcnet.layers.shape.constant_padding import Pad
from funcnet.value import frozen


@frozen
class Circular(Pad):
    """Base of wrap-around padding."""

    rule = "the padding must be at most the remaining size of each axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return kernels.circular(x, pads)

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return kernels.circular_backward(gy, shape, pads)


@frozen
class CircularPad1d(Circular):
    """Pad the last axis with wrap-around, as if x were periodic.

        y[i]  = x[f(i)]       f(i) = (i - l) mod n
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
        ValueError: If the padding is larger than its axis, or removes it.

    References:
        ``torch.nn.CircularPad1d``.

    >>> import torch
    >>> CircularPad1d((1, 2))({}, torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1., 2., 3., 1., 2.]])
    """

    axes = 1


@frozen
class CircularPad2d(Circular):
    """Pad the last 2 axes with wrap-around, as if x were periodic.

        y[i]  = x[f(i)]       f(i) = (i - l) mod n
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
        ValueError: If the padding is larger than its axis, or removes it.

    References:
        ``torch.nn.CircularPad2d``.

    >>> import torch
    >>> CircularPad2d(1)({}, torch.ones(1, 3, 3)).shape
    torch.Size([1, 5, 5])
    """

    axes = 2


@frozen
class CircularPad3d(Circular):
    """Pad the last 3 axes with wrap-around, as if x were periodic.

        y[i]  = x[f(i)]       f(i) = (i - l) mod n
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
        ValueError: If the padding is larger than its axis, or removes it.

    References:
        ``torch.nn.CircularPad3d``.

    >>> import torch
    >>> CircularPad3d(1)({}, torch.ones(1, 3, 3, 3)).shape
    torch.Size([1, 5, 5, 5])
    """

    axes = 3
