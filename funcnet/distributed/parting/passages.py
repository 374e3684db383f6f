"""Passages: the exchange between workers before and after a part of a layer, and the cuts of an axis into parts.

    copy   x on all workers                gx = Σ gxᵣ
    cut    xᵣ, this worker's part of x     gx concatenated from all parts
    sum    y = Σ yᵣ                        gy on all workers
    join   y concatenated from all parts         gyᵣ, this worker's part of gy

Sums are over the workers r.
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial

from funcnet.distributed.workers import Pending, Workers, gather_rows, sum_over
from funcnet.precision import in_single, rounded


class Cut(NamedTuple):
    """The cut of an axis into ``groups`` stretches, each of which is cut into one piece per worker."""

    axis: int
    groups: int = 1

    def of(self, whole: Tensor, workers: Workers) -> Tensor:
        """Return this worker's part."""
        stretches: Tensor = whole.unflatten(self.axis, (self.groups, workers.size, -1))  # type: ignore[no-untyped-call]
        return stretches.select(self._workers_axis, workers.rank).flatten(self.axis - 1, self.axis)

    def joined(self, stacked: Tensor) -> Tensor:
        """Return the whole tensor from the parts of all workers, stacked along the first axis."""
        split: Tensor = stacked.unflatten(self.axis, (self.groups, -1))  # type: ignore[no-untyped-call]
        return split.movedim(0, self._workers_axis).flatten(self.axis - 2, self.axis)

    @property
    def _workers_axis(self) -> int:
        return self.axis - 1


class Passage(NamedTuple):
    """The exchange for x before a part of a layer, or for y after it.

    ``"none"`` changes nothing; ``"copy"`` keeps a whole x and sums its gradient over the workers; ``"cut"`` selects this worker's
    part of a whole x; ``"sum"`` sums y over the workers; ``"join"`` concatenates the whole y from its parts.
    """

    kind: str
    workers: Workers
    cut: Cut = Cut(-1)

    def forward(self, x: Any) -> Any:
        """Return the value after the passage."""
        if self.kind == "sum":
            return start_sum(x, self.workers).wait()
        return self._cut(x) if self.kind == "cut" else self._joined(x) if self.kind == "join" else x

    def back(self, g: Any) -> Any:
        """Return the gradient before the passage."""
        return self.start_back(g).wait()

    def start_back(self, g: Any) -> Pending:
        """Start the collective for the gradient before the passage."""
        if self.kind == "copy":
            return _Several([start_sum(one, self.workers) for one in g]) if isinstance(g, tuple) else start_sum(g, self.workers)
        return Pending(None, self._joined(g) if self.kind == "cut" else self._cut(g) if self.kind == "join" else g)

    def _cut(self, whole: Tensor) -> Tensor:
        return self.cut.of(whole, self.workers)

    def _joined(self, part: Tensor) -> Tensor:
        return self.cut.joined(gather_rows(self.workers, part).wait())


class _Rounded(Pending):
    """A pending sum in single precision that is returned in half precision."""

    __slots__ = ("_like",)

    def __init__(self, pending: Pending, like: Tensor) -> None:
        super().__init__(pending, like)
        self._like = like

    def wait(self) -> Any:
        return rounded(self._work.wait(), self._like)


class _Several(Pending):
    """Several collectives, whose results are returned as a tuple."""

    __slots__ = ()

    def __init__(self, pending: list[Pending]) -> None:
        super().__init__(None, pending)

    def wait(self) -> Any:
        return tuple([one.wait() for one in self._result])


def start_sum(values: Any, workers: Workers) -> Pending:
    """Start summing new values over the workers; half precision is summed in single precision, ``None`` stays ``None``."""
    if values is None:
        return Pending(None, None)
    single = in_single(values).contiguous()
    return sum_over(workers, single) if single.dtype is values.dtype else _Rounded(sum_over(workers, single), values)


class Move(NamedTuple):
    """The placements of a leaf, and those that the part of the layer needs."""

    path: str
    layout: Any
    """The mesh, the placements of the leaf, its whole shape and its strides."""
    needed: Any
    """The placements that the layer needs."""
    partial: bool = False
    """Whether the gradient is a sum over workers, as for a norm that each worker applies to its own heads."""

    def to_layer(self, leaf: Tensor) -> Tensor:
        """Return the leaf in the placements that the layer needs."""
        return _redistributed(leaf, self.layout, self.layout[1], self.needed)

    def to_leaf(self, gradient: Tensor) -> Tensor:
        """Return the gradient in the placements of the leaf."""
        return _redistributed(gradient, self.layout, (Partial(),) if self.partial else self.needed, self.layout[1])


def _redistributed(local: Tensor, layout: Any, before: Any, after: Any) -> Tensor:
    mesh, _, shape, stride = layout
    one = DTensor.from_local(local, mesh, before, run_check=False, shape=shape, stride=stride)
    return one.redistribute(placements=after).to_local()
