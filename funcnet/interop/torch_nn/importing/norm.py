"""Normalization over the batch, rows, groups, instances and neighboring channels."""

from typing import Any

from torch import nn

from funcnet.contract import Layer
from funcnet.interop.torch_nn.importing.conversion import entry_of, made, same
from funcnet.interop.torch_nn.importing.registry import Converted, layer
from funcnet.interop.torch_nn.importing.values import UnsupportedError
from funcnet.layers.norm.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from funcnet.layers.norm.group_norm import GroupNorm
from funcnet.layers.norm.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from funcnet.layers.norm.layer_norm import LayerNorm, RMSNorm
from funcnet.layers.norm.local_response_norm import LocalResponseNorm

_BATCH: dict[type, type[Layer]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
    nn.SyncBatchNorm: BatchNorm2d,
}

_INSTANCE: dict[type, type[Layer]] = {
    nn.InstanceNorm1d: InstanceNorm1d,
    nn.InstanceNorm2d: InstanceNorm2d,
    nn.InstanceNorm3d: InstanceNorm3d,
}

same(nn.LocalResponseNorm, LocalResponseNorm, "size", "alpha", "beta", "k")


@layer(*_BATCH)
def batch_norm(module: Any) -> Converted:
    """Convert a batch normalization.

    A ``SyncBatchNorm``, whose number of axes is unknown, becomes a ``BatchNorm2d`` over the rows of one process.
    """
    return made(entry_of(module, _BATCH), module, momentum=module.momentum, **_channels(module))


@layer(*_INSTANCE)
def instance_norm(module: Any) -> Converted:
    """Convert an instance normalization; with ``momentum=None`` torch.nn's statistics never change."""
    momentum = 0.0 if module.momentum is None else module.momentum
    return made(entry_of(module, _INSTANCE), module, momentum=momentum, **_channels(module))


def _channels(module: Any) -> dict[str, Any]:
    """Return the options of a normalization; its buffers, not its flags, determine whether it has running statistics."""
    tracked = module.running_mean is not None
    if module.track_running_stats is not tracked:
        rule = f"track_running_stats={module.track_running_stats} must say whether there are running statistics"
        raise UnsupportedError(f"{rule}, and running_mean is {'a tensor' if tracked else 'None'}")
    affine = _affine(module, "affine")
    return {"num_features": module.num_features, "eps": module.eps, "track_running_stats": tracked, **affine}


def _affine(module: Any, name: str) -> dict[str, bool]:
    """Return whether there are a weight and a bias; ``name`` is the option for both."""
    affine = module.weight is not None
    return {name: affine, "bias": module.bias is not None or not affine}


@layer(nn.GroupNorm)
def group_norm(module: nn.GroupNorm) -> Converted:
    """Convert a normalization over groups of channels."""
    options = {name: getattr(module, name) for name in ("num_groups", "num_channels", "eps")}
    return made(GroupNorm, module, **options, **_affine(module, "affine"))


@layer(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm) -> Converted:
    """Convert a normalization over rows."""
    affine = _affine(module, "elementwise_affine")
    return made(LayerNorm, module, normalized_shape=tuple(module.normalized_shape), eps=module.eps, **affine)


@layer(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm) -> Converted:
    """Convert a root-mean-square normalization over rows."""
    shape, affine = tuple(module.normalized_shape), module.weight is not None
    return made(RMSNorm, module, normalized_shape=shape, eps=module.eps, elementwise_affine=affine)
