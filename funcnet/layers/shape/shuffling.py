"""Shuffling: channels to pixels and back, and channels between groups."""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_floating
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import size
from funcnet.kernels.shape import resizing as kernels
from funcnet.layers.shape.reshaping import Shaped, SingleRule
from funcnet.value import frozen


@frozen
class PixelShuffle(SingleRule):
    """Turn channels into pixels: r² channels become r × r pixels each.

        y[c, r h + i, r w + j] = x[c r² + r i + j, h, w]
        gx = PixelUnshuffle of gy

    Args:
        upscale_factor: The factor r.

    Shape:
        x (..., C r², H, W) → y (..., C, r H, r W)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If r² does not divide the channels.

    References:
        Shi et al. 2016, eq. 4; ``torch.nn.PixelShuffle``.

    >>> PixelShuffle(2)({}, torch.arange(4.0).reshape(4, 1, 1))
    tensor([[[0., 1.],
             [2., 3.]]])
    """

    rule = "x must have the axes (..., C, H, W), and C must be a multiple of {0.upscale_factor}²"

    upscale_factor: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        if require_floating(self, params, x).shape[-3] % self.upscale_factor**2:
            raise Misfit
        y = kernels.pixel_shuffle(x, self.upscale_factor)
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.pixel_unshuffle(check_gy(self, gy, *cache), self.upscale_factor)


@frozen
class PixelUnshuffle(SingleRule):
    """Turn pixels into channels: the inverse of ``PixelShuffle``.

        y[c r² + r i + j, h, w] = x[c, r h + i, r w + j]
        gx = PixelShuffle of gy

    Args:
        downscale_factor: The factor r.

    Shape:
        x (..., C, r H, r W) → y (..., C r², H, W)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If r does not divide height and width.

    References:
        ``torch.nn.PixelUnshuffle``.

    >>> PixelUnshuffle(2)({}, torch.ones(1, 4, 6)).shape
    torch.Size([4, 2, 3])
    """

    rule = "x must have the axes (..., C, H, W), and H and W must be multiples of {0.downscale_factor}"

    downscale_factor: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        height, width = require_floating(self, params, x).shape[-2:]
        if height % self.downscale_factor or width % self.downscale_factor:
            raise Misfit
        y = kernels.pixel_unshuffle(x, self.downscale_factor)
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.pixel_shuffle(check_gy(self, gy, *cache), self.downscale_factor)


@frozen
class ChannelShuffle(SingleRule):
    """Reorder the channels, one from each of ``groups`` groups in turn, so that grouped convolutions exchange information.

        y[k g + i] = x[i c + k]            for channels in g groups of c
        gx = ChannelShuffle of gy, with c groups

    Args:
        groups: Number g of groups.

    Shape:
        x (N, C, ...) → y (N, C, ...)

    Cache:
        The size of a group, the shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If ``groups`` does not divide the channels.

    References:
        Zhang, Zhou, Lin & Sun 2018, "ShuffleNet", section 3.1; ``torch.nn.ChannelShuffle``.

    >>> ChannelShuffle(2)({}, torch.arange(4.0).reshape(1, 4, 1)).flatten()
    tensor([0., 2., 1., 3.])
    """

    rule = "x must have the axes (N, C, length, ...), with C a multiple of {0.groups}"

    groups: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[int, Shape, Tensor]]:
        y = torch.channel_shuffle(require_floating(self, params, x), self.groups)
        return y, (max(x.shape[1] // self.groups, 1), tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[int, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, torch.channel_shuffle(check_gy(self, gy, *cache[1:]), cache[0])
