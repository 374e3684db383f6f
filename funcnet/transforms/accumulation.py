"""Accumulation: the gradient of a large batch from micro-batches, computed one after the other.

Sums are in float32 at least.
"""

from itertools import pairwise
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Cache, Layer, Params
from funcnet.errors import adds_location, describe, value_error, whole
from funcnet.flattening import flatten_together, unflatten
from funcnet.gradients import ValueAndGrads, value_and_grads
from funcnet.losses.loss import Loss, rows_of
from funcnet.precision import in_single, rounded
from funcnet.random.keys import Key
from funcnet.value import Value, frozen


@frozen
class Accumulated(Value):
    """The loss of a net and its gradient, computed in micro-batches; made by ``accumulate``.

        value = Σ wᵢ valueᵢ / Σ wᵢ        grads = Σ wᵢ gradsᵢ / Σ wᵢ        wᵢ = loss.weight_of(targetᵢ)

    Args:
        step: The ``value_and_grads`` of the net and its loss.
        k: Number of micro-batches.
    """

    label = "accumulate"

    step: ValueAndGrads
    k: int = field(validator=whole(1))

    def __call__(self, params: Params, x: Any, target: Any, rng: Key | int | None = None) -> tuple[Tensor, Params, Cache]:
        return self.scaled(params, x, target, rng, None)

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Params, Cache]:
        """Return the value, the gradient (times ``scale``, if given), and the cache of the last micro-batch."""
        parts = self.micro_batches(x, target)
        keys = keys_of(rng, len(parts))
        if self.step.loss.part_count > 1 or self.step.net.surrogate:  # gradient clipping must see the whole batch's gradients
            return self._by_part(params, parts, keys, scale)
        total, value, grads, cache = self._weigh(params, *parts[0], keys[0], scale)
        for (x_i, target_i), key in zip(parts[1:], keys[1:], strict=True):
            del cache  # only one micro-batch's cache is in memory
            w, v, g, cache = self._weigh(params, x_i, target_i, key, scale)
            total, value, grads = total + w, value + v, tree.add(grads, g)
        share = 1.0 if self.step.loss.reduction == "sum" else _nonzero(total)
        return value / share, _divide(grads, share, params), cache

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return params with the batch statistics of the last micro-batch folded into the running ones."""
        return self.step.update_stats(params, cache)

    def _by_part(
        self, params: Params, micro_batches: list[tuple[Any, Any]], keys: list[Any], scale: Tensor | None
    ) -> tuple[Tensor, Params, Cache]:
        """Return Σ fᵢ (wᵢ / Σ wᵢ) ℓᵢ and its gradients over the micro-batches, for a loss Σ fᵢ ℓᵢ."""
        loss, net, found, cache = self.step.loss, self.step.net, [], None
        for (x, target), shares, key in zip(micro_batches, _shares(loss, micro_batches), keys, strict=True):
            cache = None  # only one micro-batch's cache is in memory
            y, cache = net.apply(params, x, key)
            values, gy = loss.parts_and_grad(y, target, shares if scale is None else tuple([s * scale.float() for s in shares]))
            value = loss.value_of_parts([_scale_by(v, share) for v, share in zip(values, shares, strict=True)])
            del y
            found.append((value, tree.map(in_single, net.grads(params, cache, gy))))
            del gy
        total, grads = found[0]
        for value, g in found[1:]:
            total, grads = total + value, tree.add(grads, g)
        return total, _divide(grads, 1.0, params), cache

    def _weigh(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Any, Tensor, Params, Cache]:
        """Return the weight of a micro-batch, and its value and gradient times the weight; 0 for weight 0."""
        value, grads, cache = self.step.scaled(params, x, target, rng, scale)
        if self.step.loss.reduction == "sum":
            return 1, value, tree.map(in_single, grads), cache
        w = self.step.loss.weight_of(target) if tree.leaves(target) else rows_of(x)
        return w, _scale_by(value, w), tree.map(lambda g: _scale_by(g, w), grads), cache

    def micro_batches(self, x: Any, target: Any, *, exactly: bool = False) -> list[tuple[Any, Any]]:
        """Divide x and target along their first axes.

        Args:
            x: The input of the batch.
            target: Its target.
            exactly: Whether to return k parts in any case, some of them empty; otherwise fewer than k rows give fewer parts.

        Returns:
            A list of pairs (x, target).

        Raises:
            ValueError: If x and target do not have the same number of rows.
        """
        sizes = {row_count(leaf) for leaf in tree.leaves((x, target))}
        if len(sizes) != 1 or -1 in sizes:
            raise value_error(
                self, "x and target must be dense, and must have the same number of rows", f"{describe(x)} and {describe(target)}"
            )
        (n,) = sizes
        k = self.k if exactly else max(1, min(self.k, n))
        ends = [n * i // k for i in range(k + 1)]
        return [_rows((x, target), a, b) for a, b in pairwise(ends)]

    def __repr__(self) -> str:
        return f"accumulate({self.step.net!r}, {self.step.loss!r}, {self.k})"


def keys_of(rng: Key | int | None, count: int) -> list[Key | None]:
    """Return the key of each micro-batch: ``fold_in(rng, i)``."""
    return [None if rng is None else random.fold_in(rng, i) for i in range(count)]


def row_count(leaf: Any) -> int:
    """Return the size of the first axis; -1 for numbers and sparse tensors, which cannot be divided along it."""
    return leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() and leaf.layout in _DIVISIBLE else -1


_DIVISIBLE = (torch.strided, torch.jagged)


def _rows(values: Any, a: int, b: int) -> Any:
    return tree.map(lambda leaf: leaf[a:b], values)


def _shares(loss: Loss, micro_batches: list[tuple[Any, Any]]) -> list[tuple[Any, ...]]:
    """Return the share of each micro-batch in each part of the loss: wᵢ / Σ wᵢ, or 1 for sums."""
    columns = [
        [1.0 if part.reduction == "sum" else part.weight_of(target) for _, target in micro_batches] for part in loss.part_list()
    ]
    totals = [1.0 if part.reduction == "sum" else _nonzero(sum(ws)) for part, ws in zip(loss.part_list(), columns, strict=True)]
    return [tuple([w / total for w, total in zip(row, totals, strict=True)]) for row in zip(*columns, strict=True)]


def _nonzero(total: Any) -> Any:
    """Return a total weight to divide by, 1 if it is 0: the value is 0 then."""
    return torch.where(total == 0, 1, total) if isinstance(total, Tensor) else total or 1


def _scale_by(one: Tensor, w: float | Tensor) -> Tensor:
    """Return a number or a gradient times a weight; with weight 0 it is 0, even if it is NaN because there are no rows."""
    return torch.where(torch.as_tensor(w, device=one.device) == 0, 0.0, in_single(one) * w)


def _divide(grads: Params, share: Any, params: Params) -> Params:
    """Divide the gradients that are present, in the dtypes of params."""
    pairs = zip(*flatten_together(grads, params), strict=True)
    made: Params = unflatten(grads, iter([None if g is None else rounded(g / share, p) for g, p in pairs]))
    return made


@adds_location("accumulate")
def accumulate(net: Layer, loss: Loss, k: int) -> Accumulated:
    """Compute loss and gradients of a batch in ``k`` micro-batches, with 1/k of the memory for caches.

        value = Σ wᵢ valueᵢ / Σ wᵢ        grads = Σ wᵢ gradsᵢ / Σ wᵢ        wᵢ = loss.weight_of(targetᵢ)

    With ``reduction="sum"`` values and gradients are added. Value and gradients equal the results for the whole batch up to
    rounding, also if rows are weighted or labels ignored. A net that is ``batch_dependent`` sees one micro-batch at a time, and
    ``update_stats`` uses the statistics of the last one. Micro-batch i of a stochastic net has the key ``fold_in(rng, i)``.

    Args:
        net: The net.
        loss: The loss, with one value.
        k: Number of micro-batches; a batch with fewer rows has one for each row.

    Returns:
        A function ``(params, x, target, rng=None) -> (value, grads, cache)``, like the result of ``value_and_grads``; ``cache``
        is the cache of the last micro-batch.

    Raises:
        ValueError: If ``k`` is below 1, or ``value_and_grads`` rejects the net or the loss.

    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> step = accumulate(Linear(1, 1, bias=False), MSE(), 2)
    >>> value, grads, cache = step({"weight": torch.ones(1, 1)}, torch.ones(4, 1), torch.zeros(4, 1))
    >>> value, grads
    (tensor(1.), {'weight': tensor([[2.]])})
    """
    return Accumulated(value_and_grads(net, loss), k)
