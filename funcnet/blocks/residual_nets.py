"""Blocks of residual nets, as expressions of layers and combinators.

    resnet_block                 y = a(S x + N C a(N C x))
    resnet_bottleneck            y = a(S x + N C a(N C a(N C x)))

a is an activation, N a batch norm, C a convolution and S the shortcut. x and y are (N, C, height, width).
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
    """Two convolutions 3×3 with batch norms around a shortcut, on (N, channels, height, width): the block of ResNet-18 and 34.

    From ``in_channels`` to ``out_channels``, in steps of ``stride``, with ``activation`` between and behind. Where the shape
    changes, the shortcut is a convolution 1×1 with a batch norm; all are without bias.

    Raises   ``ValueError`` for numbers below 1.
    Source   He et al. 2016, figure 5, left.
    """
    body = (_conv_norm(in_channels, out_channels, 3, stride), activation, _conv_norm(out_channels, out_channels, 3, 1))
    return serial(residual(serial(*body), _shortcut(in_channels, out_channels, stride)), activation)


@adds_location("resnet_bottleneck")
def resnet_bottleneck(
    in_channels: int, channels: int, stride: int = 1, *, expansion: int = 4, activation: Layer = _RELU
) -> Serial:
    """Convolutions 1×1, 3×3 and 1×1, to ``expansion`` · channels, around a shortcut: the block of ResNet-50 and deeper.

    From ``in_channels`` to ``channels`` and on, in steps of ``stride``, with ``activation`` between and behind; else as
    ``resnet_block``.

    Raises   ``ValueError`` for numbers below 1.
    Source   He et al. 2016, figure 5, right; the stride stands at the 3×3, as in torchvision.
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
