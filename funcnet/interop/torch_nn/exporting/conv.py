"""Convolutions as torch.nn modules."""

from typing import Any

from torch import nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.registry import namesake, native, same_names
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from funcnet.layers.conv.unfold import Fold, Unfold

same_names([ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Fold, Unfold])


@native(Conv1d, Conv2d, Conv3d)
def _conv(layer: Any, params: Params) -> nn.Module | None:
    """Convert a convolution with symmetric padding."""
    pads = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,)
    is_known = layer.padding in ("same", "valid") or all(isinstance(pad, int) for pad in pads)
    return namesake(getattr(nn, type(layer).__name__), layer, params) if is_known else None
