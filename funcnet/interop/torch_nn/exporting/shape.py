"""Reshaping, padding and resizing as torch.nn modules."""

from funcnet.interop.torch_nn.exporting.registry import same_names
from funcnet.layers.shape.boundary_padding import (
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
)
from funcnet.layers.shape.circular_padding import CircularPad1d, CircularPad2d, CircularPad3d
from funcnet.layers.shape.constant_padding import (
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from funcnet.layers.shape.reshaping import Flatten, Identity, Unflatten
from funcnet.layers.shape.resizing import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d
from funcnet.layers.shape.shuffling import ChannelShuffle, PixelShuffle, PixelUnshuffle

same_names([Identity, Flatten, Unflatten, PixelShuffle, PixelUnshuffle, ChannelShuffle])
same_names([Upsample, UpsamplingNearest2d, UpsamplingBilinear2d])
same_names([ZeroPad1d, ZeroPad2d, ZeroPad3d, ConstantPad1d, ConstantPad2d, ConstantPad3d])
same_names([CircularPad1d, CircularPad2d, CircularPad3d, ReflectionPad1d, ReflectionPad2d, ReflectionPad3d])
same_names([ReplicationPad1d, ReplicationPad2d, ReplicationPad3d])
