"""Placements: the division of DTensors along one axis of a mesh."""

from typing import Any

from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from funcnet.kernels.sharding_rules import register_sharding_rules

register_sharding_rules()

StridedShard = _StridedShard
"""Torch's placement for an axis that is divided in stretches, each of which has a piece on every worker."""

WHOLE = Replicate()


def divided_along(axis: int, groups: int = 1) -> Any:
    """Return the placement of a leaf that is divided along an axis, in several separate stretches."""
    return Shard(axis) if groups == 1 else StridedShard(axis, split_factor=groups)


def placement_of(leaf: Any) -> Any:
    """Return the placement of a leaf on a mesh of one axis, or ``None`` for a plain tensor."""
    placements = getattr(leaf, "placements", None)
    return None if placements is None else placements[0]


def cut_of(leaf: Any) -> tuple[int, int]:
    """Return the axis along which a leaf is divided, and the number of stretches; (-1, 1) for a whole leaf."""
    placement = placement_of(leaf)
    axis = getattr(placement, "dim", None)
    return (-1, 1) if axis is None else (axis % max(leaf.dim(), 1), getattr(placement, "split_factor", 1))


def is_divided(leaf: Any) -> bool:
    """Return whether each worker has a different piece of a leaf."""
    return cut_of(leaf)[0] >= 0
