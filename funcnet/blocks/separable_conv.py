"""Depthwise and separable convolutions: one kernel per channel, then a weighted sum of the channels.

x and y are (N, channels, length), (N, channels, height, width) or (N, channels, depth, height, width); the batch axis N is
optional.
"""

from typing import Any

from funcnet.combinators.sequential import Serial, serial
from funcnet.errors import adds_location, is_whole, value_error
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.padding import Pad
from funcnet.layers.conv.window import Sizes

_Conv = Conv1d | Conv2d | Conv3d


def _kernels(channels: int, multiplier: int) -> int:
    """Return the number of kernels, after checking both factors."""
    for name, got in (("channels", channels), ("multiplier", multiplier)):
        if not is_whole(got) or got < 1:
            raise value_error("depthwise_conv", f"{name} must be a whole number of at least 1", repr(got))
    return channels * multiplier


@adds_location("depthwise_conv1d")
def depthwise_conv1d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv1d:
    """Build a depthwise ``Conv1d``: each channel has ``multiplier`` separate kernels.

        y[m c + i] = w[m c + i] * x[c] + b[m c + i]        for channel c, i < m = ``multiplier``, and * the cross-correlation

    Args:
        channels: Number of channels of x.
        kernel_size: Size of the kernel, one number or one per axis.
        multiplier: Number of kernels for each channel.
        options: Further fields of ``Conv1d``: ``stride``, ``padding``, ``bias``, ...

    Shape:
        x (N, channels, length) → y (N, multiplier · channels, new length)

    Returns:
        A ``Conv1d`` with ``groups=channels``.

    Raises:
        ValueError: If ``channels`` or ``multiplier`` is below 1.

    >>> depthwise_conv1d(4, 3).init(0)["weight"].shape
    torch.Size([4, 1, 3])
    """
    return Conv1d(channels, _kernels(channels, multiplier), kernel_size, groups=channels, **options)


@adds_location("depthwise_conv2d")
def depthwise_conv2d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv2d:
    """Build a depthwise ``Conv2d``: each channel has ``multiplier`` separate kernels.

        y[m c + i] = w[m c + i] * x[c] + b[m c + i]        for channel c, i < m = ``multiplier``, and * the cross-correlation

    Args:
        channels: Number of channels of x.
        kernel_size: Size of the kernel, one number or one per axis.
        multiplier: Number of kernels for each channel.
        options: Further fields of ``Conv2d``: ``stride``, ``padding``, ``bias``, ...

    Shape:
        x (N, channels, height, width) → y (N, multiplier · channels, new height, new width)

    Returns:
        A ``Conv2d`` with ``groups=channels``.

    Raises:
        ValueError: If ``channels`` or ``multiplier`` is below 1.

    >>> depthwise_conv2d(4, 3).init(0)["weight"].shape
    torch.Size([4, 1, 3, 3])
    """
    return Conv2d(channels, _kernels(channels, multiplier), kernel_size, groups=channels, **options)


@adds_location("depthwise_conv3d")
def depthwise_conv3d(channels: int, kernel_size: Sizes, multiplier: int = 1, **options: Any) -> Conv3d:
    """Build a depthwise ``Conv3d``: each channel has ``multiplier`` separate kernels.

        y[m c + i] = w[m c + i] * x[c] + b[m c + i]        for channel c, i < m = ``multiplier``, and * the cross-correlation

    Args:
        channels: Number of channels of x.
        kernel_size: Size of the kernel, one number or one per axis.
        multiplier: Number of kernels for each channel.
        options: Further fields of ``Conv3d``: ``stride``, ``padding``, ``bias``, ...

    Shape:
        x (N, channels, depth, height, width) → y (N, multiplier · channels, new depth, new height, new width)

    Returns:
        A ``Conv3d`` with ``groups=channels``.

    Raises:
        ValueError: If ``channels`` or ``multiplier`` is below 1.

    >>> depthwise_conv3d(4, 3).init(0)["weight"].shape
    torch.Size([4, 1, 3, 3, 3])
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
    """Compose a depthwise and a pointwise convolution, a cheaper replacement for ``Conv1d``.

        y = pointwise(depthwise(x))        depthwise: groups = channels,  pointwise: kernel 1

    For k elements in the kernel, C channels in and out, and ``multiplier`` 1, it has C k + C² weights; a convolution has C² k.

    Args:
        in_channels: Number of channels of x.
        out_channels: Number of channels of y.
        kernel_size: Size of the depthwise kernel, one number or one per axis.
        stride: Step of the kernel, one number or one per axis.
        padding: Padding, as for ``Conv1d``.
        dilation: Distance between the elements of the kernel, one number or one per axis.
        multiplier: Number of kernels for each input channel.
        bias: Whether the pointwise convolution has a bias. The depthwise convolution has none: it would be redundant.
        options: Further fields of ``Conv1d``; ``initializer`` is used for both convolutions.

    Shape:
        x (N, in_channels, length) → y (N, out_channels, new length)

    Params:
        depthwise: ``weight`` (multiplier · in_channels, 1, kernel length).
        pointwise: ``weight`` (out_channels, multiplier · in_channels, 1) and ``bias`` (out_channels,).

    Returns:
        A ``serial`` with the layers ``depthwise`` and ``pointwise``.

    Raises:
        ValueError: If a number is below 1.

    References:
        Chollet 2017, "Xception".

    >>> [tuple(leaf.shape) for leaf in separable_conv1d(4, 6, 3).init(0)["pointwise"].values()]
    [(6, 4, 1), (6,)]
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
    """Compose a depthwise and a pointwise convolution, a cheaper replacement for ``Conv2d``.

        y = pointwise(depthwise(x))        depthwise: groups = channels,  pointwise: kernel 1

    For k elements in the kernel, C channels in and out, and ``multiplier`` 1, it has C k + C² weights; a convolution has C² k.

    Args:
        in_channels: Number of channels of x.
        out_channels: Number of channels of y.
        kernel_size: Size of the depthwise kernel, one number or one per axis.
        stride: Step of the kernel, one number or one per axis.
        padding: Padding, as for ``Conv2d``.
        dilation: Distance between the elements of the kernel, one number or one per axis.
        multiplier: Number of kernels for each input channel.
        bias: Whether the pointwise convolution has a bias. The depthwise convolution has none: it would be redundant.
        options: Further fields of ``Conv2d``; ``initializer`` is used for both convolutions.

    Shape:
        x (N, in_channels, height, width) → y (N, out_channels, new height, new width)

    Params:
        depthwise: ``weight`` (multiplier · in_channels, 1, kernel height, kernel width).
        pointwise: ``weight`` (out_channels, multiplier · in_channels, 1, 1) and ``bias`` (out_channels,).

    Returns:
        A ``serial`` with the layers ``depthwise`` and ``pointwise``.

    Raises:
        ValueError: If a number is below 1.

    References:
        Chollet 2017, "Xception".

    >>> [tuple(leaf.shape) for leaf in separable_conv2d(4, 6, 3).init(0)["pointwise"].values()]
    [(6, 4, 1, 1), (6,)]
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
    """Compose a depthwise and a pointwise convolution, a cheaper replacement for ``Conv3d``.

        y = pointwise(depthwise(x))        depthwise: groups = channels,  pointwise: kernel 1

    For k elements in the kernel, C channels in and out, and ``multiplier`` 1, it has C k + C² weights; a convolution has C² k.

    Args:
        in_channels: Number of channels of x.
        out_channels: Number of channels of y.
        kernel_size: Size of the depthwise kernel, one number or one per axis.
        stride: Step of the kernel, one number or one per axis.
        padding: Padding, as for ``Conv3d``.
        dilation: Distance between the elements of the kernel, one number or one per axis.
        multiplier: Number of kernels for each input channel.
        bias: Whether the pointwise convolution has a bias. The depthwise convolution has none: it would be redundant.
        options: Further fields of ``Conv3d``; ``initializer`` is used for both convolutions.

    Shape:
        x (N, in_channels, depth, height, width) → y (N, out_channels, new depth, new height, new width)

    Params:
        depthwise: ``weight`` (multiplier · in_channels, 1, kernel depth, kernel height, kernel width).
        pointwise: ``weight`` (out_channels, multiplier · in_channels, 1, 1, 1) and ``bias`` (out_channels,).

    Returns:
        A ``serial`` with the layers ``depthwise`` and ``pointwise``.

    Raises:
        ValueError: If a number is below 1.

    References:
        Chollet 2017, "Xception".

    >>> [tuple(leaf.shape) for leaf in separable_conv3d(4, 6, 3).init(0)["pointwise"].values()]
    [(6, 4, 1, 1, 1), (6,)]
    """
    where = {"stride": stride, "padding": padding, "dilation": dilation}
    first = depthwise_conv3d(in_channels, kernel_size, multiplier, **where, bias=False, **options)
    return _then_pointwise(first, out_channels, bias, options)


def _then_pointwise(first: _Conv, out_channels: int, bias: bool, options: dict[str, Any]) -> Serial:
    how = {name: value for name, value in options.items() if name == "initializer"}
    return serial(depthwise=first, pointwise=type(first)(first.out_channels, out_channels, 1, bias=bias, **how))
