"""Sums over workers: totals of metrics, losses and counts that each worker computes for its own rows."""

from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.distributed.failures import explaining_failures
from funcnet.distributed.together import shared
from funcnet.distributed.workers import Workers, sum_over, workers_of
from funcnet.errors import describe, value_error
from funcnet.flattening import Tree
from funcnet.paths import named_leaves
from funcnet.precision import in_single, rounded


def all_reduce(values: Tree, group: Any = None) -> Tree:
    """Sum trees over workers, leaf by leaf, and return the sums on every worker.

        sums = Σᵣ valuesᵣ      over the workers r

    Use it for quantities that each worker has computed on its own rows, such as totals of metrics. The tree is not modified.
    There is one collective for each dtype and device, after one that compares paths, shapes and dtypes. Half precision is summed
    in float32.

    Args:
        values: A tree of tensors, with the same paths, shapes and dtypes on all workers. ``None`` stays ``None``.
        group: The process group; by default all processes.

    Returns:
        The tree of the sums, the same on all workers.

    Raises:
        ValueError: On every worker, if a leaf is not a plain tensor of numbers or differs between workers, with the path; if
            there is no process group.

    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> all_reduce({"correct": torch.tensor(3), "loss": torch.tensor(0.5)})
    {'correct': tensor(3), 'loss': tensor(0.5000)}
    >>> dist.destroy_process_group()
    """
    workers = workers_of("all_reduce", group)
    _require_same(shared(workers, "all_reduce", lambda: _kinds(values)))
    with explaining_failures(workers, "all_reduce"):
        named = {path: leaf for path, leaf in named_leaves("", values) if leaf is not None}
        order = sorted(named)  # the order of a dict can differ between workers
        sums = dict(zip(order, _sums(workers, [named[path] for path in order]), strict=True))
    return tree.map_with_path(lambda path, leaf: sums[path], values)


def _kinds(values: Tree) -> dict[str, str]:
    """Return a description of each leaf, by path."""
    return {path: _kind(path, leaf) for path, leaf in named_leaves("", values)}


def _kind(path: str, leaf: Any) -> str:
    if leaf is None:
        return "None"
    if type(leaf) is not Tensor or leaf.layout is not torch.strided or leaf.dtype is torch.bool:
        where = f" at {path!r}" * bool(path)
        raise value_error("all_reduce", "every leaf must be a plain dense tensor of numbers", describe(leaf) + where)
    return f"shape {tuple(leaf.shape)} and {leaf.dtype}"


def _require_same(kinds: list[dict[str, str]]) -> None:
    """Raise on every worker if a leaf differs from rank 0's, since a sum of different shapes would hang or be wrong."""
    first = kinds[0]
    for rank, other in enumerate(kinds):
        for path in [*first, *other]:
            one, two = first.get(path, "no such leaf"), other.get(path, "no such leaf")
            if one != two:
                rule = f"leaves must have the same paths, shapes and dtypes on all workers, and {path!r} differs"
                raise value_error("all_reduce", rule, f"{one} on rank 0 and {two} on rank {rank}")


def _sums(workers: Workers, leaves: list[Tensor]) -> list[Tensor]:
    """Return the sums of tensors; those of one dtype and device are sent together."""
    found: list[Tensor] = [*leaves]
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault((in_single(leaf).dtype, leaf.device), []).append(i)
    flats = [torch.cat([in_single(leaves[i].detach()).reshape(-1) for i in places]) for places in groups.values()]
    pending = [sum_over(workers, flat) for flat in flats]
    for places, one in zip(groups.values(), pending, strict=True):
        pieces = torch.split(one.wait(), [leaves[i].numel() for i in places])
        for i, piece in zip(places, pieces, strict=True):
            found[i] = rounded(piece, leaves[i]).view(leaves[i].shape)
    return found
