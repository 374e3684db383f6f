"""Blocks of residual nets, composed of layers and combinators.

x and y are (N, channels, height, width).
"""

from funcnet.combinators.branching import residual
from funcnet.combinators.sequential import Serial, serial
from funcnet.contract import Layer
from funcnet.errors import adds_location, is_whole, value_error
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.conv.conv import Conv2d
from funcnet.layers.norm.batch_norm import BatchNorm2d
from funcnet.layers.shape.reshaping import Identity

_RELU = ReLU()


@adds_location("resnet_block")
def resnet_block(in_channels: int, out_channels: int, stride: int = 1, *, activation: Layer = _RELU) -> Serial:
    """Two 3×3 convolutions with batch norms and a shortcut: the block of ResNet-18 and ResNet-34.

        y = a(S x + N C a(N C x))        C a convolution, N a batch norm, a the activation, S the shortcut

    If the shape changes, the shortcut is a 1×1 convolution with a batch norm. The convolutions have no bias.

    Args:
        in_channels: Number of channels of x.
        out_channels: Number of channels of y.
        stride: Step of the first convolution and of the shortcut, in pixels.
        activation: The activation between the convolutions and after the sum.

    Shape:
        x (N, in_channels, height, width) → y (N, out_channels, height / stride, width / stride), rounded up

    Returns:
        A ``serial`` of the layers.

    Raises:
        ValueError: If a number is below 1.

    References:
        He et al. 2016, figure 5, left.

    >>> import torch
    >>> block = resnet_block(4, 8, stride=2)
    >>> block(block.init(0), torch.ones(2, 4, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """
    body = (_conv_norm(in_channels, out_channels, 3, stride), activation, _conv_norm(out_channels, out_channels, 3, 1))
    return serial(residual(serial(*body), _shortcut(in_channels, out_channels, stride)), activation)


@adds_location("resnet_bottleneck")
def resnet_bottleneck(
    in_channels: int, channels: int, stride: int = 1, *, expansion: int = 4, activation: Layer = _RELU
) -> Serial:
    """Convolutions 1×1, 3×3 and 1×1 with batch norms and a shortcut: the block of ResNet-50 and deeper nets.

        y = a(S x + N C a(N C a(N C x)))        C a convolution, N a batch norm, a the activation, S the shortcut

    If the shape changes, the shortcut is a 1×1 convolution with a batch norm. The convolutions have no bias.

    Args:
        in_channels: Number of channels of x.
        channels: Number of channels of the first two convolutions.
        stride: Step of the 3×3 convolution (as in torchvision) and of the shortcut, in pixels.
        expansion: Ratio of the number of channels of y to ``channels``.
        activation: The activation between the convolutions and after the sum.

    Shape:
        x (N, in_channels, height, width) → y (N, expansion · channels, height / stride, width / stride), rounded up

    Returns:
        A ``serial`` of the layers.

    Raises:
        ValueError: If a number is below 1.

    References:
        He et al. 2016, figure 5, right; torchvision for the position of the stride.

    >>> import torch
    >>> block = resnet_bottleneck(4, 2)
    >>> block(block.init(0), torch.ones(1, 4, 6, 6)).shape
    torch.Size([1, 8, 6, 6])
    """
    for name, got in (("channels", channels), ("expansion", expansion)):
        if not is_whole(got) or got < 1:
            raise value_error("resnet_bottleneck", f"{name} must be a whole number of at least 1", repr(got))
    out = expansion * channels
    down, middle, up = (
        _conv_norm(in_channels, channels, 1, 1),
        _conv_norm(channels, channels, 3, stride),
        _conv_norm(channels, out, 1, 1),
    )
    body = serial(down, activation, middle, activation, up)
    return serial(residual(body, _shortcut(in_channels, out, stride)), activation)


def _conv_norm(channels: int, out_channels: int, kernel: int, stride: int) -> Serial:
    conv = Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, bias=False, initializer="kaiming_normal")
    return serial(conv, BatchNorm2d(out_channels))


def _shortcut(channels: int, out_channels: int, stride: int) -> Layer:
    return Identity() if channels == out_channels and stride == 1 else _conv_norm(channels, out_channels, 1, stride)
