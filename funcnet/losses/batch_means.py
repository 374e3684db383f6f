"""Means over batches: combine the values of a loss on batches into its value on all rows, part by part.

    part i, "mean" and "batch"   Σ w ℓᵢ / Σ w      over the batches, w = ``weight_of(target)``; 0 if Σ w = 0
            "sum"                Σ ℓᵢ
    loss                         Σ fᵢ partᵢ        over the parts

``by_part`` makes a loss that returns the value of each part, and ``LossMean`` adds up batches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Cache
from funcnet.errors import instances
from funcnet.flattening import flatten_together, unflatten
from funcnet.losses.loss import Loss, rows_of
from funcnet.losses.parts import Part, Weight
from funcnet.value import Value, frozen

Batches = Sequence[Tensor]


@frozen
class ByPart(Loss):
    """A loss that returns one value per part; its gradient is the same as without parts. ``by_part`` makes it, for histories.

    Args:
        loss: The loss, with several parts or a factor.
    """

    loss: Loss

    @property
    def reduction(self) -> str:  # type: ignore[override]
        return self.loss.reduction

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Cache]:
        values, cache = self.loss.forward_parts(y, target)
        return self.value_of_parts(values), cache

    def backward(self, cache: Cache, g: Any = None) -> Any:
        factors = [part.factor for part in self.loss.part_list()]
        if g is None or not isinstance(g, Tensor) or not g.dim():  # one gradient for all entries
            return self.loss.backward_parts(cache, tuple([f if g is None else f * g for f in factors]))
        return self.loss.backward_parts(cache, tuple([f * g[..., i] for i, f in enumerate(factors)]))

    def weight_of(self, target: Any) -> Weight:
        return self.loss.weight_of(target)

    @property
    def part_count(self) -> int:
        return self.loss.part_count

    def part_list(self) -> tuple[Part, ...]:
        return self.loss.part_list()

    def forward_parts(self, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        return self.loss.forward_parts(y, target)

    def backward_parts(self, cache: Cache, gs: tuple[Weight, ...]) -> Any:
        return self.loss.backward_parts(cache, gs)

    def value_of_parts(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([*values], -1)

    def __repr__(self) -> str:
        return repr(self.loss)


def by_part(loss: Loss) -> Loss:
    """Return a loss with one value per part; the loss itself if it has only one part, with the factor 1."""
    return loss if _is_whole(loss.part_list()) else ByPart(loss)


def _is_whole(parts: Sequence[Part]) -> bool:
    return len(parts) == 1 and parts[0].factor == 1


@frozen
class LossMean(Value):
    """Mean of a loss and of each of its parts over all rows, accumulated batch by batch.

    For an ensemble, the values of the members are averaged.

    Args:
        loss: The loss.
    """

    loss: Loss = field(validator=instances(Loss, "a loss"))

    def start(self) -> list[tuple[float, float]]:
        """Return Σ w ℓ and Σ w for each part, before the first batch."""
        return [(0.0, 0.0)] * len(self.loss.part_list())

    def add(self, totals: list[tuple[float, float]], y: Any, target: Any) -> list[tuple[float, float]]:
        """Return the totals with a batch added.

        Args:
            totals: The totals so far.
            y: The outputs of the batch.
            target: Its targets.
        """
        values, weights = self.loss.part_values(y, target), self.weigh(y, target)
        return [_add(total, float(v.mean()), w) for total, v, w in zip(totals, values, weights, strict=True)]

    def weigh(self, rows: Any, target: Any) -> list[float]:
        """Return the weight of a batch in the mean of each part; without a target, the number of rows.

        Args:
            rows: The outputs or the inputs of the batch; only their number of rows matters.
            target: Its targets; ``None`` if there are none.
        """
        known = type(target) is Tensor or bool(tree.leaves(target))
        parts = self.loss.part_list()
        return [1.0 if part.reduction == "sum" else float(part.weight_of(target) if known else rows_of(rows)) for part in parts]

    def value(self, totals: list[tuple[float, float]]) -> dict[str, float]:
        """Return the mean as ``loss``, and each of several parts, without its factor, as ``loss.<name>``.

        Args:
            totals: The totals of all batches.
        """
        parts = self.loss.part_list()
        return _columns(parts, [_over(part, total, weight) for part, (total, weight) in zip(parts, totals, strict=True)])

    def over_batches(self, values: Tensor, weights: Sequence[Sequence[float]]) -> dict[str, float]:
        """Return ``value`` from the values and the weights of all batches.

        Args:
            values: The values, (batches, parts) or (batches, members, parts).
            weights: For each part, the weight of each batch.
        """
        totals = self.start()
        rows = values.view(len(values), -1, len(totals)).mean(1).tolist()
        for row, of_batch in zip(rows, zip(*weights, strict=True), strict=True):
            totals = [_add(total, v, w) for total, v, w in zip(totals, row, of_batch, strict=True)]
        return self.value(totals)

    def weights(self, target: Any) -> Callable[[Batches], list[list[float]]]:
        """Return a function from batches of row indices to their weights for each part; the weights of rows are precomputed.

        Args:
            target: The targets of all rows.
        """
        found = [_weights(part, target) for part in self.loss.part_list()]
        return lambda batches: [weigh(batches) for weigh in found]


def _add(total: tuple[float, float], value: float, weight: float) -> tuple[float, float]:
    """Add a weighted value to the totals. A value of weight 0 is skipped, since it can be NaN."""
    return (total[0] + value * weight, total[1] + weight) if weight else total


def _over(part: Part, total: float, weight: float) -> float:
    return total if part.reduction == "sum" else total / weight if weight else 0.0


def _columns(parts: Sequence[Part], values: Sequence[float]) -> dict[str, float]:
    whole = {"loss": sum([part.factor * value for part, value in zip(parts, values, strict=True)])}
    return whole | ({f"loss.{part.name}": v for part, v in zip(parts, values, strict=True)} if len(parts) > 1 else {})


def _weights(part: Part, target: Any) -> Callable[[Batches], list[float]]:
    if part.reduction == "sum":
        return lambda batches: [1.0] * len(batches)
    if not tree.leaves(target) or not isinstance(part.weight_of(target), Tensor):
        return lambda batches: [float(len(batch)) for batch in batches]
    of_rows = _of_rows(part, target).double()
    return lambda batches: _sums(of_rows[torch.cat(tuple(batches))], list(map(len, batches)))


def _of_rows(part: Part, target: Any) -> Any:
    """Return the weight of each row."""
    leaves = flatten_together(target)[0]
    there = [leaf.unsqueeze(1) for leaf in leaves if leaf is not None]

    def of_row(*row: Tensor) -> Weight:
        left = iter(row)
        return part.weight_of(unflatten(target, iter([leaf if leaf is None else next(left) for leaf in leaves])))

    weights: Any = torch.func.vmap(of_row)(*there)
    return weights


def _sums(values: Tensor, lengths: list[int]) -> list[float]:
    """Sum consecutive pieces of these lengths, with a few kernels for all of them."""
    ends = values.cumsum(0)[torch.tensor(lengths).cumsum(0) - 1]
    return ends.diff(prepend=ends.new_zeros(1)).tolist()
