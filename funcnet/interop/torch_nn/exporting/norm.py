"""Norms as torch.nn modules, with their running statistics as buffers."""

from typing import Any, Self

from torch import nn

from funcnet.contract import Params
from funcnet.interop.torch_nn.exporting.registry import namesake, native, same_names
from funcnet.layers.norm.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from funcnet.layers.norm.group_norm import GroupNorm
from funcnet.layers.norm.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from funcnet.layers.norm.layer_norm import LayerNorm, RMSNorm
from funcnet.layers.norm.local_response_norm import LocalResponseNorm
from funcnet.layers.norm.running_batch_norm import RunningBatchNorm1d, RunningBatchNorm2d, RunningBatchNorm3d
from funcnet.layers.norm.running_instance_norm import RunningInstanceNorm1d, RunningInstanceNorm2d, RunningInstanceNorm3d

same_names([BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm, RMSNorm, LocalResponseNorm])


class _InEval(nn.Module):
    """A norm that uses its running statistics in both modes, like a layer after ``inference()``."""

    def train(self, mode: bool = True) -> Self:
        return super().train(mode=False)


class RunningBatchNorm1dModule(_InEval, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` with its running statistics in both modes."""


class RunningBatchNorm2dModule(_InEval, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with its running statistics in both modes."""


class RunningBatchNorm3dModule(_InEval, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` with its running statistics in both modes."""


class RunningInstanceNorm1dModule(_InEval, nn.InstanceNorm1d):
    """``nn.InstanceNorm1d`` with its running statistics in both modes."""


class RunningInstanceNorm2dModule(_InEval, nn.InstanceNorm2d):
    """``nn.InstanceNorm2d`` with its running statistics in both modes."""


class RunningInstanceNorm3dModule(_InEval, nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` with its running statistics in both modes."""


BY_RUNNING_STATS: dict[type, type] = {
    RunningBatchNorm1d: RunningBatchNorm1dModule,
    RunningBatchNorm2d: RunningBatchNorm2dModule,
    RunningBatchNorm3d: RunningBatchNorm3dModule,
    RunningInstanceNorm1d: RunningInstanceNorm1dModule,
    RunningInstanceNorm2d: RunningInstanceNorm2dModule,
    RunningInstanceNorm3d: RunningInstanceNorm3dModule,
}


@native(*BY_RUNNING_STATS)
def _running(layer: Any, params: Params) -> Any:
    return namesake(BY_RUNNING_STATS[type(layer)], layer, params, track_running_stats=True).eval()


@native(InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
def _instance(layer: Any, params: Params) -> Any:
    """Convert a norm if its running statistics have a fixed rate, since torch's instance norms do not count batches."""
    if layer.track_running_stats and layer.momentum is None:
        return None
    return namesake(getattr(nn, type(layer).__name__), layer, params)
