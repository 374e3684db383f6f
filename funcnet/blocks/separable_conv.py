"""Separable convolutions: one kernel for each channel, then a weighted sum of the channels, as layers of other layers.

y = pointwise(depthwise(x))        depthwise: groups = channels        pointwise: kernel 1

x and y are (N, channels, length), (N, channels, height, width) or (N, channels, depth, height, width), or without N. Arguments
that a convolution has too, ``kernel_size``, ``stride``, ``padding``, ``dilation`` and, as ``options``, all others, mean what they
mean there, and are refused as there; ``multiplier`` is how many kernels each channel has.
"""

from typing import Any

from funcnet.combinators.sequential import Serial, serial
from funcnet.errors import adds_location, is_whole, value_error
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.padding import Pad
from funcnet.layers.conv.window import Sizes

_Conv = Conv1d | Conv2d | Conv3d


def _kernels(channels: int, multiplier: int) -> int:
    """Return how many kernels there are for so many channels."""
    for name, got in (("channels", channels), ("multiplier", multiplier)):
        if not is_whole(got) or got < 1:
            raise value_error("depthwise_conv", f"{name} must be a whole number of at least 1", repr(got))
    return channels * multiplier


@adds_location("depthwise_conv1d")
def depthwise_conv1d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv1d:
    """Make the ``Conv1d`` that gives each of ``channels`` ``multiplier`` kernels of its own.

    Raises   ``ValueError`` for numbers below 1, and as ``Conv1d`` does.
    """
    return Conv1d(channels, _kernels(channels, multiplier), kernel_size, groups=channels, **options)


@adds_location("depthwise_conv2d")
def depthwise_conv2d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv2d:
    """Make the ``Conv2d`` that gives each of ``channels`` ``multiplier`` kernels of its own.

    Raises   ``ValueError`` for numbers below 1, and as ``Conv2d`` does.
    """
    return Conv2d(channels, _kernels(channels, multiplier), kernel_size, groups=channels, **options)


@adds_location("depthwise_conv3d")
def depthwise_conv3d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv3d:
    """Make the ``Conv3d`` that gives each of ``channels`` ``multiplier`` kernels of its own.

    Raises   ``ValueError`` for numbers below 1, and as ``Conv3d`` does.
    """
    return Conv3d(channels, _kernels(channels, multiplier), kernel_size, groups=channels, **options)


@adds_location("separable_conv1d")
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
    """Compose ``depthwise`` and ``pointwise``, in a serial by these names, from ``in_channels`` to ``out_channels``.

    The first has no bias, since that of the second, there with ``bias=True``, makes up for it.

    For k elements in the kernel, C channels in and out, and multiplier 1 it has C k + C² weights, where a convolution has C² k.

    >>> [tuple(leaf.shape) for leaf in separable_conv1d(4, 6, 3).init(0)["pointwise"].values()]
    [(6, 4, 1), (6,)]

    Raises   ``ValueError`` for numbers below 1, and as ``Conv1d`` does.
    Source   Chollet 2017, "Xception".
    """
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv1d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


@adds_location("separable_conv2d")
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
    """Compose ``depthwise`` and ``pointwise`` over two axes, as ``separable_conv1d`` does over one; arguments are the same.

    From ``in_channels`` to ``out_channels``, the second with ``bias``.

    Raises   ``ValueError`` for numbers below 1, and as ``Conv2d`` does.
    """
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv2d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


@adds_location("separable_conv3d")
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
    """Compose ``depthwise`` and ``pointwise`` over three axes, as ``separable_conv1d`` does over one; arguments are the same.

    From ``in_channels`` to ``out_channels``, the second with ``bias``.

    Raises   ``ValueError`` for numbers below 1, and as ``Conv3d`` does.
    """
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv3d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


def _then_pointwise(first: _Conv, out_channels: int, bias: bool, options: dict[str, Any]) -> Serial:
    how = {name: value for name, value in options.items() if name == "initializer"}
    return serial(depthwise=first, pointwise=type(first)(first.out_channels, out_channels, 1, bias=bias, **how))
