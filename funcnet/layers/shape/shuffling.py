"""Shuffling: channels that become places, places that become channels, and channels in another order.

PixelShuffle     y[c, r h + i, r w + j] = x[c r² + r i + j, h, w]      gx: PixelUnshuffle of gy
PixelUnshuffle   the inverse of PixelShuffle                           gx: PixelShuffle of gy
ChannelShuffle   y[k g + i] = x[i c + k], channels in g groups of c    gx: the same with c groups
"""

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
    """Make places of channels: (..., C r², H, W) becomes (..., C, r H, r W), r = ``upscale_factor``.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a factor below 1, and an ``x`` that is not floating, has less than 3 axes, or channels that
             r² does not divide.
    Source   Shi et al. 2016.
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
    """Make channels of places: (..., C, r H, r W) becomes (..., C r², H, W), r = ``downscale_factor``.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a factor below 1, and an ``x`` that is not floating, has less than 3 axes, or places that r does
             not divide.
    Source   ``torch.nn.PixelUnshuffle``'s formula.
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
    """Deal the channels of (N, C, ...) out anew, one from each of ``groups`` in turn, so that groups of a convolution mix.

    Params   none.
    Cache    the size of a group, the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a number of groups below 1, and an ``x`` that is not floating, has less than 3 axes, or channels
             that ``groups`` does not divide.
    Source   Zhang, Zhou, Lin & Sun 2018, "ShuffleNet".
    """

    rule = "x must have the axes (N, C, ...), C a multiple of {0.groups}, and one more"

    groups: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[int, Shape, Tensor]]:
        y = torch.channel_shuffle(require_floating(self, params, x), self.groups)
        return y, (max(x.shape[1] // self.groups, 1), tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[int, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, torch.channel_shuffle(check_gy(self, gy, *cache[1:]), cache[0])
