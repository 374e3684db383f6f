"""Poolings as torch.nn modules."""

from typing import Any

from torch import nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.registry import namesake, native, same_names
from funcnet.layers.conv.window import each
from funcnet.layers.pooling.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from funcnet.layers.pooling.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d
from funcnet.layers.pooling.lp_pool import LPPool1d, LPPool2d, LPPool3d
from funcnet.layers.pooling.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
from funcnet.layers.pooling.unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d

same_names([AvgPool1d, AvgPool2d, AvgPool3d, LPPool1d, LPPool2d, LPPool3d, MaxPool1d, MaxPool2d, MaxPool3d])
same_names([AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d])


@native(MaxUnpool1d, MaxUnpool2d, MaxUnpool3d)
def _unpool(layer: Any, params: Params) -> Any:
    """Convert an unpooling without overlapping windows: if two windows write to the same index, torch's gradient counts both."""
    sizes, strides = each(layer.kernel_size, layer.axes), each(layer.stride or layer.kernel_size, layer.axes)
    overlap = any(size > stride for size, stride in zip(sizes, strides, strict=True))
    return None if overlap else namesake(getattr(nn, type(layer).__name__), layer, params)
