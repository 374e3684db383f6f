"""Shuffling: channels that become places, places that become channels, and channels in another order.

PixelShuffle     y[c, r h + i, r w + j] = x[c r² + r i + j, h, w]      gx: PixelUnshuffle of gy
PixelUnshuffle   the inverse of PixelShuffle                           gx: PixelShuffle of gy
ChannelShuffle   y[k g + i] = x[i c + k], channels in g groups of c    gx: the same with c groups
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import require_floating
from funcnet.contract import Layer, Params, Rng
from funcnet.errors import size, value_error
from funcnet.kernels.shape import resizing as kernels
from funcnet.value import frozen


def _images(layer: Layer, params: Params, x: Tensor, rule: str, channels: int = 1, places: int = 1) -> Tensor:
    """Return x as it is; it must be (..., C, H, W), C a multiple of ``channels``, H and W of ``places``."""
    if require_floating(layer, params, x).dim() < 3 or x.shape[-3] % channels or x.shape[-2] % places or x.shape[-1] % places:
        raise value_error(layer, f"x must have the axes (..., C, H, W), {rule}", f"x of shape {tuple(x.shape)}")
    return x


@frozen
class PixelShuffle(Layer):
    """Make places of channels: (..., C r², H, W) becomes (..., C, r H, r W), r = ``upscale_factor``.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for a factor below 1, and an ``x`` that is not floating, has less than 3 axes, or channels that
             r² does not divide.
    Source   Shi et al. 2016.
    """

    upscale_factor: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        rule = f"and C must be a multiple of {self.upscale_factor**2}"
        return kernels.pixel_shuffle(_images(self, params, x, rule, self.upscale_factor**2), self.upscale_factor), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.pixel_unshuffle(gy, self.upscale_factor)


@frozen
class PixelUnshuffle(Layer):
    """Make channels of places: (..., C, r H, r W) becomes (..., C r², H, W), r = ``downscale_factor``.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for a factor below 1, and an ``x`` that is not floating, has less than 3 axes, or places that r does
             not divide.
    Source   ``torch.nn.PixelUnshuffle``'s formula.
    """

    downscale_factor: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        rule = f"and H and W must be multiples of {self.downscale_factor}"
        return kernels.pixel_unshuffle(_images(self, params, x, rule, 1, self.downscale_factor), self.downscale_factor), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.pixel_shuffle(gy, self.downscale_factor)


@frozen
class ChannelShuffle(Layer):
    """Deal the channels of (N, C, ...) out anew, one from each of ``groups`` in turn, so that groups of a convolution mix.

    Params   none.
    Cache    the size of a group.
    Raises   ``ValueError`` for a number of groups below 1, and an ``x`` that is not floating, has less than 3 axes, or channels
             that ``groups`` does not divide.
    Source   Zhang, Zhou, Lin & Sun 2018, "ShuffleNet".
    """

    groups: int = field(validator=size)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, int]:
        if require_floating(self, params, x).dim() < 3 or x.shape[1] % self.groups:
            rule = f"x must have the axes (N, C, ...), C a multiple of {self.groups}, and one more"
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        return torch.channel_shuffle(x, self.groups), x.shape[1] // self.groups

    def vjp(self, params: Params, cache: int, gy: Tensor) -> tuple[Params, Tensor]:
        return params, torch.channel_shuffle(gy, cache)
