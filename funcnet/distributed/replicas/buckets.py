"""Buckets: the gradients of several layers in one flat tensor, summed over all workers while the backward pass goes on.

A collective takes about as long for one number as for ten thousand, so the gradients of a few layers are sent together, in the
order of the backward pass. Only the bucket of the first layers cannot overlap with computation.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.distributed.replicas.shares import or_one
from funcnet.distributed.workers import Pending, Workers, sum_over
from funcnet.flattening import flatten_together, unflatten
from funcnet.losses.parts import Weight
from funcnet.precision import in_single, rounded

MOST_BUCKETS, LEAVES, BYTES = 8, 12, 1 << 22
"""The bytes per bucket, and the largest number of buckets; small nets have up to three, with at least this many leaves each."""


class Sent(NamedTuple):
    """A flat tensor that is being sent: the places and numbers of its leaves, their shapes, and the collective."""

    leaves: list[tuple[int, int]]
    shapes: list[Any]
    sums: Pending


class AllReduce:
    """A reducer that returns the sum of all workers' gradients to every worker."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._buckets: list[list[int]] | None = None

    def begin(self, entries: list[Params], weight: Weight | None = None, numbers: Tensor | None = None) -> None:
        """Start a backward pass.

        Args:
            entries: The params of each place.
            weight: The factor of this worker's gradients before they are added up; ``None`` for a loss that is a sum, whose
                gradients are only added up.
            numbers: A row of numbers to sum in the same collective; the last one is the weight. The sums are then in
                ``numbers``, and the gradients are divided by the sum of weights.
        """
        self._weight, self.numbers = weight, numbers
        if self._buckets is None:
            self.arrange(plan(entries))
        self._entries, self._next = entries, 0
        self._missing = [len(bucket) for bucket in self._buckets or ()]
        self._leaves: list[list[Any] | None] = [None] * len(entries)
        self._likes: list[list[Any]] = [[]] * len(entries)
        self._sent: list[Sent] = []

    def arrange(self, buckets: list[list[int]]) -> None:
        """Set the places that are sent together."""
        self._buckets = buckets
        self._bucket_of = {place: i for i, bucket in enumerate(buckets) for place in bucket}

    def report(self, place: int, gradient: Params) -> None:
        self._likes[place], self._leaves[place] = flatten_together(self._entries[place], gradient)
        if place in self._bucket_of:
            self._missing[self._bucket_of[place]] -= 1
        while self._next < len(self._missing) and not self._missing[self._next]:
            self._send()

    def _send(self) -> None:
        """Send the next bucket: one flat tensor for each kind of leaf in it."""
        groups: dict[Any, list[tuple[int, int]]] = {}
        for place in self._buckets[self._next]:  # type: ignore[index]  # begin has set them
            for i, leaf in enumerate(self._leaves[place] or ()):
                if leaf is not None:
                    groups.setdefault(self._kind(place, i, leaf), []).append((place, i))
        for one in self._sent:  # the previous bucket was sent while this one was computed
            one.sums.settle()
        for (dtype, *_), leaves in groups.items():
            self._sent.append(self._started(leaves, dtype))
        self._next += 1

    def _kind(self, place: int, i: int, leaf: Tensor) -> tuple[Any, ...]:
        """Return the properties that leaves of the same message share; the first is the dtype of the sum."""
        return in_single(leaf).dtype, leaf.device

    def _started(self, leaves: list[tuple[int, int]], dtype: torch.dtype) -> Sent:
        """Start the sum of a flat copy of some leaves, which are then released; half precision is summed in float32."""
        parts = [self._leaves[place][i] for place, i in leaves]  # type: ignore[index]  # they have been reported
        for place, i in leaves:
            self._leaves[place][i] = None  # type: ignore[index]
        numbers = [] if self.numbers is None or self._sent else [self.numbers.to(dtype)]
        flat = torch.cat([*[in_single(part).reshape(-1) for part in parts], *numbers])
        weigh(flat[: -len(numbers[0])] if numbers else flat, self._weight)
        return Sent(leaves, [part.shape for part in parts], sum_over(self.workers, flat))

    def finish(self, total: Weight | None = None) -> list[Any]:
        """Return the sums, divided by the total weight: the given one, or the one in ``numbers``."""
        while self._next < len(self._missing):  # layers that the backward pass did not reach have no gradient
            self._send()
        flats = [one.sums.wait() for one in self._sent]
        if self.numbers is not None:
            self.numbers = flats[0][-len(self.numbers) :].real.double() if flats else sum_over(self.workers, self.numbers).wait()
            total = None if self._weight is None else or_one(self.numbers[-1])
        for (leaves, shapes, _), flat in zip(self._sent, flats, strict=True):
            self._put(leaves, shapes, flat if total is None else flat.div_(total))
        rows = zip(self._entries, self._leaves, strict=True)
        summed = [None if leaves is None else unflatten(entry, iter(leaves)) for entry, leaves in rows]
        self._entries, self._leaves, self._likes, self._sent = [], [], [], []  # nothing is held between steps
        return summed

    def _put(self, leaves: list[tuple[int, int]], shapes: list[Any], flat: Tensor) -> None:
        sizes = [shape.numel() for shape in shapes]
        pieces = torch.split(flat[: sum(sizes)], sizes)
        for (place, i), shape, piece in zip(leaves, shapes, pieces, strict=True):
            self._leaves[place][i] = rounded(piece, self._likes[place][i]).view(shape)  # type: ignore[index]


def weigh(flat: Tensor, weight: Weight | None) -> None:
    """Multiply gradients by their weight, in place; with weight 0 they become 0, even if they are NaN."""
    if isinstance(weight, Tensor):
        flat.mul_(weight).masked_fill_(weight == 0, 0.0)
    elif weight is not None and weight != 1:
        _ = flat.mul_(weight) if weight else flat.zero_()


def weighed(leaf: Tensor, weight: Weight | None) -> Tensor:
    """Return a gradient times its weight; the gradient itself for weight 1."""
    if weight is None or (not isinstance(weight, Tensor) and weight == 1):
        return leaf
    product = leaf * weight
    return product.masked_fill_(weight == 0, 0.0) if isinstance(weight, Tensor) else product if weight else product.zero_()


def plan(entries: Sequence[Params]) -> list[list[int]]:
    """Return the places of each bucket, the last layers first; places without params are omitted."""
    sizes = [(place, *_size(entry)) for place, entry in reversed([*enumerate(entries)])]
    sizes = [row for row in sizes if row[1]]
    leaves, total = sum([row[1] for row in sizes]), sum([row[2] for row in sizes])
    count = min(MOST_BUCKETS, max(min(3, ceil(leaves / LEAVES)), ceil(total / BYTES)))
    buckets: list[list[int]] = [[] for _ in range(count)]
    filled = 0
    for place, _, size in sizes:
        buckets[min(count - 1, int(filled * count / max(total, 1)))].append(place)
        filled += size
    return [bucket for bucket in buckets if bucket]


def _size(entry: Params) -> tuple[int, int]:
    """Return the number of floating and complex leaves of a layer's params, which can have gradients, and their bytes."""
    leaves = [one for one in tree.leaves(entry) if isinstance(one, Tensor) and (one.is_floating_point() or one.is_complex())]
    return len(leaves), sum([leaf.numel() * leaf.element_size() for leaf in leaves])
