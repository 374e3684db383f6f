"""Convolutions, transposed convolutions, and image windows as columns."""

from typing import Any

from torch import nn

from funcnet.contract import Layer, Params
from funcnet.interop.torch_nn.importing.conversion import compact, entry_of, made, same
from funcnet.interop.torch_nn.importing.output_sizes import tensor_of_lengths, whole_numbers_in
from funcnet.interop.torch_nn.importing.registry import Converted, call, layer
from funcnet.interop.torch_nn.importing.values import Node, Ref, UnsupportedError
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from funcnet.layers.conv.unfold import Fold, Unfold

_SAME: dict[type, type[Layer]] = {nn.Conv1d: Conv1d, nn.Conv2d: Conv2d, nn.Conv3d: Conv3d}

_TRANSPOSED: dict[type, type[Layer]] = {
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}

_NAMES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")

same(nn.Unfold, Unfold, "kernel_size", "dilation", "padding", "stride")
same(nn.Fold, Fold, "output_size", "kernel_size", "dilation", "padding", "stride")


@layer(*_SAME)
def conv(module: Any) -> Converted:
    """Convert a convolution."""
    return made(entry_of(module, _SAME), module, **_options(module, "padding_mode"))


@layer(*_TRANSPOSED)
def conv_transpose(module: Any) -> Converted:
    """Convert a transposed convolution; torch.nn always pads it with zeros."""
    return made(entry_of(module, _TRANSPOSED), module, **_options(module, "output_padding"))


def _options(module: Any, *more: str) -> dict[str, Any]:
    """Return the arguments that both kinds share, and further ones by name."""
    return {name: compact(getattr(module, name)) for name in (*_NAMES, *more)} | {"bias": module.bias is not None}


@call(*_TRANSPOSED)
def call_conv_transpose(
    module: nn.Module,
    layer: Any,
    params: Params,
    input: Ref | Node,  # noqa: A002 (torch's name)
    output_size: Any = None,
) -> Node:
    """Apply the layer; with ``output_size``, y has the lengths of another tensor."""
    if output_size is None:
        return Node(layer, (input,), params)
    if whole_numbers_in(output_size, layer.axes) is not None:
        rule = "output_size must be sizes of a tensor; the counterpart of a numeric one is the module's output_padding"
        raise UnsupportedError(rule)
    return Node(layer, (input, tensor_of_lengths(output_size, layer.axes)), params)
