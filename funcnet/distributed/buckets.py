"""Buckets: the gradients of several layers in one flat tensor, summed over all workers while the backward pass goes on.

A collective costs about the same for a number as for ten thousand, so the gradients of a few layers are sent together. The
layers are in the order in which the backward pass comes to them. The bucket of the first layers can hide behind nothing, and is
the smallest.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinators.mixed_precision import with_dtypes_of
from funcnet.contract import Params
from funcnet.distributed.workers import Pending, Workers, sum_over
from funcnet.flattening import flatten_together, unflatten
from funcnet.precision import in_single

MOST_BUCKETS, LEAVES, BYTES = 8, 12, 1 << 20
"""There is a bucket for so many leaves or bytes, and at most so many in all."""


class Sent(NamedTuple):
    """A flat tensor on its way: the places and numbers of its leaves, their shapes, and the collective."""

    leaves: list[tuple[int, int]]
    shapes: list[torch.Size]
    sums: Pending


class AllReduce:
    """A reducer that gives every worker the sum of the gradients of all."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._buckets: list[list[int]] | None = None

    def begin(self, entries: list[Params]) -> None:
        if self._buckets is None:
            self._buckets = plan(entries)
            self._bucket_of = {place: i for i, bucket in enumerate(self._buckets) for place in bucket}
        self._entries, self._next = entries, 0
        self._missing = [len(bucket) for bucket in self._buckets]
        self._leaves: list[list[Any] | None] = [None] * len(entries)
        self._sent: list[Sent] = []

    def report(self, place: int, gradient: Params) -> None:
        self._leaves[place] = flatten_together(self._entries[place], gradient)[1]
        if place in self._bucket_of:
            self._missing[self._bucket_of[place]] -= 1
        while self._next < len(self._missing) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        """Send the next bucket: one flat tensor for each dtype and device in it."""
        groups: dict[Any, list[tuple[int, int]]] = {}
        for place in self._buckets[self._next]:  # type: ignore[index]  # begin has made them
            for i, leaf in enumerate(self._leaves[place] or ()):
                if leaf is not None:
                    groups.setdefault((in_single(leaf).dtype, leaf.device), []).append((place, i))
        self._sent += [self._started(leaves) for leaves in groups.values()]
        self._next += 1

    def _started(self, leaves: list[tuple[int, int]]) -> Sent:
        """Start the sum of a flat copy of some leaves, which are then released."""
        parts = [self._leaves[place][i] for place, i in leaves]  # type: ignore[index]  # they have been reported
        for place, i in leaves:
            self._leaves[place][i] = None  # type: ignore[index]
        flat = torch.cat([in_single(part).reshape(-1) for part in parts])  # sums of half precision are float32
        return Sent(leaves, [part.shape for part in parts], sum_over(self.workers, flat))

    def finish(self) -> list[Params]:
        while self._next < len(self._missing):  # the layers that were not reached have no gradient
            self._send()
        for leaves, shapes, sums in self._sent:
            pieces = torch.split(sums.wait(), [shape.numel() for shape in shapes])
            for (place, i), shape, piece in zip(leaves, shapes, pieces, strict=True):
                self._leaves[place][i] = piece.view(shape)  # type: ignore[index]
        return [self._whole(*one) for one in zip(self._entries, self._leaves, strict=True)]

    def _whole(self, entry: Params, leaves: list[Any] | None) -> Params:
        """Return the gradient of a place, in the dtypes of its params."""
        return None if leaves is None else with_dtypes_of(unflatten(entry, iter(leaves)), entry)


def plan(entries: Sequence[Params]) -> list[list[int]]:
    """Return the places of each bucket, those of the last layers first; places without params are in none."""
    sizes = [(place, *_size(entry)) for place, entry in reversed([*enumerate(entries)])]
    sizes = [row for row in sizes if row[1]]
    leaves, total = sum([row[1] for row in sizes]), sum([row[2] for row in sizes])
    count = min(MOST_BUCKETS, max(ceil(leaves / LEAVES), ceil(total / BYTES)))
    buckets: list[list[int]] = [[] for _ in range(count)]
    filled = 0
    for place, _, size in sizes:
        buckets[min(count - 1, int(filled * count / max(total, 1)))].append(place)
        filled += size
    return [bucket for bucket in buckets if bucket]


def _size(entry: Params) -> tuple[int, int]:
    """Return how many floating leaves there are in the params of a layer, and their bytes."""
    floating = [leaf for leaf in tree.leaves(entry) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return len(floating), sum([leaf.numel() * leaf.element_size() for leaf in floating])
