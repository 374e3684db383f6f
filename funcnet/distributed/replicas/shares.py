"""Shares: the weight of each worker's shard in the value of the whole batch and in its gradient.

For a loss Σ fᵢ ℓᵢ of parts ℓᵢ, on micro-batches of all workers, with wᵢ = ``weight_of(target)``, or 1 for sums:

    sᵢ    = wᵢ / Σ wᵢ                over all micro-batches of all workers; Σ wᵢ is one sum over workers
    value = Σ fᵢ Σ sᵢ ℓᵢ             the inner sum over all micro-batches of all workers
    gy    = ∂(Σ fᵢ sᵢ ℓᵢ)/∂y         gradients of params are then simply added up

A micro-batch of weight 0 has the share 0, and adds exact zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.distributed.workers import Pending, Workers, sum_over
from funcnet.gradients import scaled_gradient
from funcnet.losses.loss import Loss, rows_of
from funcnet.losses.parts import Weight
from funcnet.precision import HALF

_WIDE = (torch.float32, torch.float64)

Batch = tuple[Any, Any]
"""A micro-batch: x and its target."""

Share = tuple[Weight, ...]
"""The share of a micro-batch in each part of the loss."""


class Shares:
    """The shares of this worker's micro-batches; the sum over workers starts here and is awaited in ``of_parts``."""

    def __init__(self, loss: Loss, batches: Sequence[Batch], workers: Workers, device: torch.device) -> None:
        self.loss = loss
        self._own = [weights_of(loss, *one) for one in batches]
        columns = [sum(column) for column in zip(*self._own, strict=True)]
        totals = torch.stack([torch.as_tensor(w, dtype=torch.float64, device=device) for w in columns])
        self._sums = sum_over(workers, totals)

    def of_parts(self) -> list[Share]:
        """Return the share of each micro-batch in each part."""
        totals = self._totals()
        summed = [part.reduction == "sum" for part in self.loss.part_list()]
        rows = [zip(own, totals, summed, strict=True) for own in self._own]
        return [tuple([1.0 if is_sum else number(w) / total for w, total, is_sum in row]) for row in rows]

    def _totals(self) -> list[Any]:
        sums = self._sums.wait()
        totals = sums.tolist() if sums.device.type == "cpu" else list(sums)  # do not wait for other devices
        return [or_one(total) for total in totals]


def weights_of(loss: Loss, x: Any, target: Any) -> list[Weight]:
    """Return the weight of a micro-batch in each part of the loss; without a target, its number of rows."""
    known = bool(tree.leaves(target))
    return [1.0 if part.reduction == "sum" else part.weight_of(target) if known else rows_of(x) for part in loss.part_list()]


def or_one(total: Any) -> Any:
    """Return a total weight to divide by, with 1 for 0, so that the value of an empty sum is 0."""
    return torch.where(total == 0, 1.0, total) if isinstance(total, Tensor) else total or 1.0


def number(w: Weight) -> Any:
    """Return a weight as a number, or as a float64 tensor on devices other than the CPU, to avoid waiting for them."""
    if not isinstance(w, Tensor):
        return w
    return float(w) if w.device.type == "cpu" else w.double()


def value_and_gy(loss: Loss, y: Any, target: Any, share: Share, scale: Tensor | None) -> tuple[list[Tensor], Any]:
    """Return the parts of the value times their shares, and the gradient of ``scale`` times the loss with respect to y."""
    factors = tuple([_fitting(s, y) if scale is None else _fitting(s, y) * scale.float() for s in share])
    values, gy = loss.parts_and_grad(y, target, factors)
    gy = _unless(_is_nothing(share), gy)
    return [times(v, s) for v, s in zip(values, share, strict=True)], gy


def weighed_gy(gy: Any, w: Weight, params: Any) -> tuple[Any, Weight]:
    """Return gy times a weight, and the remaining factor for the gradients of params.

    Multiplying gy is cheaper than multiplying the gradients of params, which have many more elements. In half precision the
    product could overflow, and a weight of 0 requires exact zeros.
    """
    if isinstance(w, Tensor) or not w:
        return gy, w
    is_wide = all([g.dtype in _WIDE for g in tree.leaves(gy)])  # noqa: C419
    if not is_wide or any([isinstance(p, Tensor) and p.dtype in HALF for p in tree.leaves(params)]):  # noqa: C419
        return gy, w
    return tree.map(lambda g: g * w, gy), 1.0


def _is_nothing(share: Share) -> bool | Tensor:
    """Return whether a micro-batch has weight 0 in any part; its gy can be NaN."""
    if all([isinstance(s, Tensor) for s in share]):  # noqa: C419
        return torch.stack([torch.as_tensor(s == 0) for s in share]).all()
    return not any([isinstance(s, Tensor) or s for s in share])  # noqa: C419


def _unless(nothing: bool | Tensor, gy: Any) -> Any:
    """Return a gradient, or zeros in its place if ``nothing`` is true."""
    if isinstance(nothing, Tensor):
        return tree.map(lambda g: torch.where(nothing, 0.0, g), gy)
    return tree.map(torch.zeros_like, gy) if nothing else gy


def _fitting(share: Weight, y: Any) -> Weight:
    """Return a share in the precision of the loss at y."""
    if not isinstance(share, Tensor):
        return share
    wide = any([leaf.dtype is torch.float64 for leaf in tree.leaves(y)])  # noqa: C419
    return share if wide else share.float()


def times(value: Tensor, share: Weight) -> Tensor:
    """Return a value times its share in float64; 0 for the share 0, whatever the value is."""
    if not isinstance(share, Tensor):
        return value.double() * share if share else torch.zeros_like(value, dtype=torch.float64)
    return torch.where(share == 0, 0.0, value.double() * share)


def value_and_scaled_gy(loss: Loss, y: Any, target: Any, scale: Tensor | None) -> tuple[Tensor, Any]:
    """Return the value, and the gradient of ``scale`` times the loss with respect to y."""
    return loss.value_and_grad(y, target) if scale is None else scaled_gradient(loss, y, target, scale)


def sum_of_values(parts: Sequence[Sequence[Tensor]], workers: Workers) -> Pending:
    """Start the sum over micro-batches and workers of the parts of the value."""
    return sum_over(workers, torch.stack([torch.stack([*column]).sum(0) for column in zip(*parts, strict=True)]))


def value_of(loss: Loss, sums: Tensor, like: Sequence[Tensor]) -> Tensor:
    """Return the value of the whole batch from the sums of its parts."""
    return loss.value_of_parts([one.to(part.dtype) for one, part in zip(sums, like, strict=True)])
