"""Separable convolutions: one kernel for each channel, then a weighted sum of the channels, as layers of other layers.

y = pointwise(depthwise(x))        depthwise: groups = channels        pointwise: kernel 1
"""

from typing import Any

from funcnet.combinators.serial import Serial, serial
from funcnet.layers.conv import Conv1d, Conv2d, Conv3d, Pad
from funcnet.layers.window import Sizes

_Conv = Conv1d | Conv2d | Conv3d


def depthwise_conv1d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv1d:
    """Make the ``Conv1d`` whose every channel has ``multiplier`` kernels of its own; ``options`` are those of ``Conv1d``."""
    return Conv1d(channels, channels * multiplier, kernel_size, groups=channels, **options)


def depthwise_conv2d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv2d:
    """Make the ``Conv2d`` whose every channel has ``multiplier`` kernels of its own; ``options`` are those of ``Conv2d``."""
    return Conv2d(channels, channels * multiplier, kernel_size, groups=channels, **options)


def depthwise_conv3d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv3d:
    """Make the ``Conv3d`` whose every channel has ``multiplier`` kernels of its own; ``options`` are those of ``Conv3d``."""
    return Conv3d(channels, channels * multiplier, kernel_size, groups=channels, **options)


def separable_conv1d(
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Pad | tuple[Pad, ...] = 0,
    dilation: Sizes = 1,
    multiplier: int = 1,
    bias: bool = True,
    **options: Any,
) -> Serial:
    """Compose ``depthwise``, without bias, which the next one's makes up for, and ``pointwise``; a serial by these names.

    For k elements in the kernel, C channels in and out, and multiplier 1 it has C k + C² weights, where a convolution has C² k.

    >>> [tuple(leaf.shape) for leaf in separable_conv1d(4, 6, 3).init(0)["pointwise"].values()]
    [(6, 4, 1), (6,)]
    """
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv1d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


def separable_conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Pad | tuple[Pad, ...] = 0,
    dilation: Sizes = 1,
    multiplier: int = 1,
    bias: bool = True,
    **options: Any,
) -> Serial:
    """Compose ``depthwise`` and ``pointwise`` over two axes, as ``separable_conv1d`` does over one."""
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv2d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


def separable_conv3d(
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    stride: Sizes = 1,
    padding: Pad | tuple[Pad, ...] = 0,
    dilation: Sizes = 1,
    multiplier: int = 1,
    bias: bool = True,
    **options: Any,
) -> Serial:
    """Compose ``depthwise`` and ``pointwise`` over three axes, as ``separable_conv1d`` does over one."""
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv3d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


def _then_pointwise(first: _Conv, out_channels: int, bias: bool, options: dict[str, Any]) -> Serial:
    how = {name: value for name, value in options.items() if name == "initializer"}
    return serial(depthwise=first, pointwise=type(first)(first.out_channels, out_channels, 1, bias=bias, **how))
