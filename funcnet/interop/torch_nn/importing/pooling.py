"""Pooling: fixed windows, adaptive and fractional pooling, and unpooling."""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import compact, entry_of, made, same
from funcnet.interop.torch_nn.importing.output_sizes import tensor_of_lengths, whole_numbers_in
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError
from funcnet.layers.pooling.adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from funcnet.layers.pooling.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d
from funcnet.layers.pooling.fractional import FractionalMaxPool2d, FractionalMaxPool3d
from funcnet.layers.pooling.lp_pool import LPPool1d, LPPool2d, LPPool3d
from funcnet.layers.pooling.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
from funcnet.layers.pooling.unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d

_AVG = ("padding", "ceil_mode", "count_include_pad")
_MAX = ("padding", "dilation", "return_indices", "ceil_mode")

_WINDOWS: dict[type, tuple[type[Layer], tuple[str, ...]]] = {
    nn.AvgPool1d: (AvgPool1d, _AVG),
    nn.AvgPool2d: (AvgPool2d, (*_AVG, "divisor_override")),
    nn.AvgPool3d: (AvgPool3d, (*_AVG, "divisor_override")),
    nn.MaxPool1d: (MaxPool1d, _MAX),
    nn.MaxPool2d: (MaxPool2d, _MAX),
    nn.MaxPool3d: (MaxPool3d, _MAX),
    nn.LPPool1d: (LPPool1d, ("norm_type", "ceil_mode")),
    nn.LPPool2d: (LPPool2d, ("norm_type", "ceil_mode")),
    nn.LPPool3d: (LPPool3d, ("norm_type", "ceil_mode")),
    nn.MaxUnpool1d: (MaxUnpool1d, ("padding",)),
    nn.MaxUnpool2d: (MaxUnpool2d, ("padding",)),
    nn.MaxUnpool3d: (MaxUnpool3d, ("padding",)),
}

_FRACTIONAL: dict[type, type[Layer]] = {
    nn.FractionalMaxPool2d: FractionalMaxPool2d,
    nn.FractionalMaxPool3d: FractionalMaxPool3d,
}

_WITH_INDICES = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *_FRACTIONAL,
)

_UNPOOLED = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)

same(nn.AdaptiveAvgPool1d, AdaptiveAvgPool1d, "output_size")
same(nn.AdaptiveAvgPool2d, AdaptiveAvgPool2d, "output_size")
same(nn.AdaptiveAvgPool3d, AdaptiveAvgPool3d, "output_size")
same(nn.AdaptiveMaxPool1d, AdaptiveMaxPool1d, "output_size", "return_indices")
same(nn.AdaptiveMaxPool2d, AdaptiveMaxPool2d, "output_size", "return_indices")
same(nn.AdaptiveMaxPool3d, AdaptiveMaxPool3d, "output_size", "return_indices")


@layer(*_WINDOWS)
def pool(module: Any) -> Converted:
    """Convert a pooling of windows; the default stride is the window size."""
    target, names = entry_of(module, _WINDOWS)
    kernel, stride = compact(module.kernel_size), compact(module.stride)
    options = {name: compact(getattr(module, name)) for name in names}
    return made(target, module, kernel_size=kernel, stride=None if stride == kernel else stride, **options)


@layer(*_FRACTIONAL)
def fractional_pool(module: Any) -> Converted:
    """Convert a fractional pooling; ``inference()`` uses fixed windows, but torch.nn samples them in evaluation too."""
    if module._random_samples is not None:
        raise UnsupportedError("_random_samples has no counterpart: the windows are drawn from a key")
    names = ("kernel_size", "output_size", "output_ratio", "return_indices")
    return made(entry_of(module, _FRACTIONAL), module, **{name: compact(getattr(module, name)) for name in names})


@call(*_WITH_INDICES)
def call_max_pool(module: Any, layer: Layer, params: Params, input: Ref | Node) -> Node:  # noqa: A002 (torch's name)
    """Apply the layer; with ``return_indices`` the output is a pair."""
    return Node(layer, (input,), params, parts=(None, None) if module.return_indices else None)


@call(*_UNPOOLED)
def call_unpool(
    module: Any,
    layer: Any,
    params: Params,
    input: Ref | Node,  # noqa: A002 (torch's name)
    indices: Ref | Node,
    output_size: Any = None,
) -> Node:
    """Apply the layer to values and indices; a numeric ``output_size`` becomes a field of the layer."""
    if output_size is None:
        return Node(layer, (input, indices), params)
    lengths = whole_numbers_in(output_size, layer.axes)
    if lengths is not None:
        return Node(layer.replace(output_size=lengths), (input, indices), params)
    return Node(layer, (input, indices, tensor_of_lengths(output_size, layer.axes)), params)
