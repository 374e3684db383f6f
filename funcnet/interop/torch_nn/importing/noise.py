"""Dropout: the same distribution, sampled with a key.

``Dropout2d`` reads three axes as (channels, height, width); torch.nn reads them as (N, channels, length).
"""

from typing import Any

from torch import nn

from funcnet.interop.torch_nn.importing.conversion import made, require_default, same
from funcnet.interop.torch_nn.importing.registry import Converted, layer_named
from funcnet.layers.noise.alpha_dropout import AlphaDropout, FeatureAlphaDropout
from funcnet.layers.noise.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d, DropPath

same(nn.AlphaDropout, AlphaDropout, "p")
same(nn.Dropout, Dropout, "p")
same(nn.Dropout1d, Dropout1d, "p")
same(nn.Dropout2d, Dropout2d, "p")
same(nn.Dropout3d, Dropout3d, "p")
same(nn.FeatureAlphaDropout, FeatureAlphaDropout, "p")


@layer_named("torchvision.ops.stochastic_depth.StochasticDepth")
def stochastic_depth(module: Any) -> Converted:
    """Convert torchvision's dropout of whole rows."""
    require_default(module, "rows are dropped one by one", mode="row")
    return made(DropPath, module, p=module.p)
