"""Poolings as modules of torch.nn."""

from funcnet.interop.torch_nn.exporting.registry import same_names
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
same_names([MaxUnpool1d, MaxUnpool2d, MaxUnpool3d])
