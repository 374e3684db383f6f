"""Shapes: flattening and unflattening axes, padding, resizing and shuffling."""

from typing import Any

from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.conversion import entry_of, made, same
from funcnet.interop.torch_nn.importing.registry import Converted, layer
from funcnet.layers.shape.boundary_padding import (
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
)
from funcnet.layers.shape.circular_padding import CircularPad1d, CircularPad2d, CircularPad3d
from funcnet.layers.shape.constant_padding import ConstantPad1d, ConstantPad2d, ConstantPad3d, ZeroPad1d, ZeroPad2d, ZeroPad3d
from funcnet.layers.shape.reshaping import Flatten, Unflatten
from funcnet.layers.shape.resizing import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d
from funcnet.layers.shape.shuffling import ChannelShuffle, PixelShuffle, PixelUnshuffle

_RESIZED: dict[type, tuple[type[Layer], tuple[str, ...]]] = {
    nn.Upsample: (Upsample, ("mode", "align_corners", "recompute_scale_factor")),
    nn.UpsamplingNearest2d: (UpsamplingNearest2d, ()),
    nn.UpsamplingBilinear2d: (UpsamplingBilinear2d, ()),
}

same(nn.Flatten, Flatten, "start_dim", "end_dim")
same(nn.ChannelShuffle, ChannelShuffle, "groups")
same(nn.PixelShuffle, PixelShuffle, "upscale_factor")
same(nn.PixelUnshuffle, PixelUnshuffle, "downscale_factor")
same(nn.CircularPad1d, CircularPad1d, "padding")
same(nn.CircularPad2d, CircularPad2d, "padding")
same(nn.CircularPad3d, CircularPad3d, "padding")
same(nn.ConstantPad1d, ConstantPad1d, "padding", "value")
same(nn.ConstantPad2d, ConstantPad2d, "padding", "value")
same(nn.ConstantPad3d, ConstantPad3d, "padding", "value")
same(nn.ReflectionPad1d, ReflectionPad1d, "padding")
same(nn.ReflectionPad2d, ReflectionPad2d, "padding")
same(nn.ReflectionPad3d, ReflectionPad3d, "padding")
same(nn.ReplicationPad1d, ReplicationPad1d, "padding")
same(nn.ReplicationPad2d, ReplicationPad2d, "padding")
same(nn.ReplicationPad3d, ReplicationPad3d, "padding")
same(nn.ZeroPad1d, ZeroPad1d, "padding")
same(nn.ZeroPad2d, ZeroPad2d, "padding")
same(nn.ZeroPad3d, ZeroPad3d, "padding")


@layer(nn.Unflatten)
def unflatten(module: nn.Unflatten) -> Converted:
    """Convert the splitting of an axis; named axes are not supported."""
    return made(Unflatten, module, dim=module.dim, unflattened_size=tuple(module.unflattened_size))


@layer(*_RESIZED)
def resize(module: Any) -> Converted:
    """Convert a resizing; a size with several entries keeps them all, because they determine the number of axes."""
    target, names = entry_of(module, _RESIZED)
    options = {name: _as_tuple(getattr(module, name)) for name in ("size", "scale_factor", *names)}
    return made(target, module, **options)


def _as_tuple(option: Any) -> Any:
    return tuple(option) if isinstance(option, (list, tuple)) else option
