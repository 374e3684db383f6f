"""Pooling, resizing, padding, shuffling, windows and dropout."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.functions.arguments import Tensor, constant, entries, has_sizes, named, node, sized, whole
from funcnet.interop.torch_nn.importing.registry import function
from funcnet.interop.torch_nn.importing.values import Node, Shape, UnsupportedError
from funcnet.layers.conv.unfold import Fold, Unfold
from funcnet.layers.noise.alpha_dropout import AlphaDropout, FeatureAlphaDropout
from funcnet.layers.noise.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from funcnet.layers.pooling.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from funcnet.layers.pooling.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d
from funcnet.layers.pooling.lp_pool import LPPool1d, LPPool2d
from funcnet.layers.pooling.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
from funcnet.layers.shape.boundary_padding import (
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
)
from funcnet.layers.shape.circular_padding import CircularPad1d, CircularPad2d, CircularPad3d
from funcnet.layers.shape.grid_sampling import GridSample
from funcnet.layers.shape.resizing import Upsample
from funcnet.layers.shape.shuffling import ChannelShuffle, PixelShuffle, PixelUnshuffle
from funcnet.layers.shape.sized import ConstantPad
from funcnet.layers.shape.sized_resizing import AdaptiveAvgPoolTo, ResizeTo

F = nn.functional


def _field(value: Any) -> Any:
    """Return an option as a field: lists become tuples."""
    value = constant(value, "an option of a pooling")
    return tuple(value) if isinstance(value, list) else value


def _register_max(kind: Callable[..., Layer], *functions: Any) -> None:
    @function(*functions)
    def convert(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Node:
        stride = None if isinstance(stride, (list, tuple)) and not stride else _field(stride)
        options = _field(kernel_size), stride, _field(padding), _field(dilation)
        return node(kind(*options, return_indices, ceil_mode), input, parts=(None, None) if return_indices else None)


def _register_avg(kind: Callable[..., Layer], *functions: Any) -> None:
    @function(*functions)
    def convert(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Node:
        stride = None if isinstance(stride, (list, tuple)) and not stride else _field(stride)
        more = () if divisor_override is None else (divisor_override,)
        return node(kind(_field(kernel_size), stride, _field(padding), ceil_mode, count_include_pad, *more), input)


_register_max(MaxPool1d, F.max_pool1d, torch.max_pool1d)
_register_max(MaxPool2d, F.max_pool2d, torch.max_pool2d)
_register_max(MaxPool3d, F.max_pool3d, torch.max_pool3d)
_register_avg(AvgPool1d, F.avg_pool1d)
_register_avg(AvgPool2d, F.avg_pool2d)
_register_avg(AvgPool3d, F.avg_pool3d)


def _register_adaptive_avg(axes: int, kind: Callable[..., Layer], *functions: Any) -> None:
    @function(*functions)
    def convert(input: Tensor, output_size: Any) -> Node:
        if has_sizes(output_size):
            return sized(AdaptiveAvgPoolTo, input, _per_axis(output_size, axes))
        return node(kind(_field(output_size)), input)


def _register_adaptive_max(kind: Callable[..., Layer], *functions: Any) -> None:
    @function(*functions)
    def convert(input: Tensor, output_size: Any, return_indices: bool = False) -> Node:
        return node(kind(_field(output_size), return_indices), input, parts=(None, None) if return_indices else None)


def _per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    found = entries(value)
    return found * axes if len(found) == 1 and not isinstance(value, (tuple, list)) and not _is_shape(value) else found


def _is_shape(value: Any) -> bool:
    return isinstance(value, Shape)


_register_adaptive_avg(1, AdaptiveAvgPool1d, F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d)
_register_adaptive_avg(2, AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
_register_adaptive_avg(3, AdaptiveAvgPool3d, F.adaptive_avg_pool3d)
_register_adaptive_max(AdaptiveMaxPool1d, F.adaptive_max_pool1d)
_register_adaptive_max(AdaptiveMaxPool2d, F.adaptive_max_pool2d)
_register_adaptive_max(AdaptiveMaxPool3d, F.adaptive_max_pool3d)


@function(F.lp_pool1d)
def _lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Node:
    return node(LPPool1d(norm_type, _field(kernel_size), _field(stride), ceil_mode), input)


@function(F.lp_pool2d)
def _lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Node:
    return node(LPPool2d(norm_type, _field(kernel_size), _field(stride), ceil_mode), input)


@function(F.interpolate, F.upsample)
def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Node:
    if antialias:
        raise UnsupportedError("F.interpolate with antialias=True has no layer")
    if has_sizes(size):
        if size is not None and not isinstance(size, (tuple, list, Shape)):
            raise UnsupportedError("the size of F.interpolate must be a tuple if it depends on shapes")
        return sized(ResizeTo, input, entries(size), mode, bool(align_corners))
    layer = Upsample(_field(size), _field(scale_factor), mode, align_corners, recompute_scale_factor)
    return node(layer, input)


@function(F.upsample_nearest)
def _upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Node:
    return _interpolate(input, size, scale_factor)


@function(F.upsample_bilinear)
def _upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Node:
    return _interpolate(input, size, scale_factor, "bilinear", True)


_PADS: dict[str, tuple[Callable[..., Layer], ...]] = {
    "reflect": (ReflectionPad1d, ReflectionPad2d, ReflectionPad3d),
    "replicate": (ReplicationPad1d, ReplicationPad2d, ReplicationPad3d),
    "circular": (CircularPad1d, CircularPad2d, CircularPad3d),
}


@function(F.pad, torch.constant_pad_nd)
def _pad(input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Node:
    if not isinstance(mode, str):
        mode, value = "constant", mode  # of torch.constant_pad_nd
    if mode == "constant":
        return sized(ConstantPad, input, tuple(pad), float(value or 0.0))
    pads = tuple(constant(pad, "pad"))
    if mode not in _PADS or len(pads) not in (2, 4, 6):
        raise UnsupportedError(f"F.pad with mode={mode!r} of {len(pads)} numbers has no layer")
    return node(_PADS[mode][len(pads) // 2 - 1](pads), input)


@function(F.pixel_shuffle)
def _pixel_shuffle(input: Tensor, upscale_factor: int) -> Node:
    return node(PixelShuffle(whole(upscale_factor, "upscale_factor")), input)


@function(F.pixel_unshuffle)
def _pixel_unshuffle(input: Tensor, downscale_factor: int) -> Node:
    return node(PixelUnshuffle(whole(downscale_factor, "downscale_factor")), input)


@function(F.channel_shuffle)
def _channel_shuffle(input: Tensor, groups: int) -> Node:
    return node(ChannelShuffle(whole(groups, "groups")), input)


@function(F.grid_sample)
def _grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Node:
    return node(GridSample(mode, padding_mode, bool(align_corners)), input, grid)


@function(F.unfold)
def _unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Node:
    return node(Unfold(_field(kernel_size), _field(dilation), _field(padding), _field(stride)), input)


@function(F.fold)
def _fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Node:
    fields = [_field(one) for one in (output_size, kernel_size, dilation, padding, stride)]
    return node(Fold(*fields), input)


def _register_dropout(name: str, kind: Callable[[float], Layer]) -> None:
    @function(*[one for one in named(name) if one is not torch.dropout])
    def convert(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return node(kind(constant(p, "p")), input) if constant(training, "training") else input


for _name, _kind in {
    "dropout": Dropout,
    "dropout1d": Dropout1d,
    "dropout2d": Dropout2d,
    "dropout3d": Dropout3d,
    "alpha_dropout": AlphaDropout,
    "feature_alpha_dropout": FeatureAlphaDropout,
}.items():
    _register_dropout(_name, _kind)


@function(torch.dropout)
def _torch_dropout(input: Tensor, p: float, train: bool) -> Any:
    return node(Dropout(constant(p, "p")), input) if train else input
