"""Dropouts as torch.nn modules, which use torch's generator."""

from torch import Tensor, nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.registry import filled, native, same_names
from funcnet.layers.noise.alpha_dropout import AlphaDropout, FeatureAlphaDropout
from funcnet.layers.noise.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d

same_names([Dropout, Dropout1d, Dropout3d, AlphaDropout, FeatureAlphaDropout])


class Dropout2dModule(nn.Dropout2d):
    """``nn.Dropout2d`` that reads three axes as (channels, height, width); torch reads them as (N, channels, length)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Drop channels."""
        return super().forward(input.unsqueeze(0)).squeeze(0) if input.dim() == 3 else super().forward(input)


@native(Dropout2d)
def _dropout2d(layer: Dropout2d, params: Params) -> nn.Module:
    module: nn.Module = filled(Dropout2dModule, layer, params, p=layer.p)
    return module
