"""Measures the errors of a layer and of its twin in torch.nn, in value and gradient, in ulps.

An ulp is the distance between neighboring numbers of the dtype at the exact result; below the normal range, between subnormal
numbers. An exact result that overflows counts as ±inf. The error is the largest over all elements. It is infinite if the result
or the exact result is infinite and they differ, and NaN if the result is NaN.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from examples.extremes import exact
from funcnet import tree
from funcnet.contract import Layer, Params

Errors = tuple[float, float]  # of the value, and of the gradient


@dataclass(frozen=True)
class Row:
    """A layer, its reference, its twin and its inputs by kind.

    ``exact`` is a function of arrays, as described in ``examples.extremes.exact``. ``twin`` has the layer's arguments; it is
    ``None`` if torch has no such layer. ``elementwise`` says that y[i] depends only on x[i]. ``by_row`` measures errors in ulps
    of the largest element along the last axis, for sums whose terms cancel. ``params`` are constants: only gradients of x are
    measured. An x is a tensor, or a tuple of tensors.
    """

    name: str
    layer: Layer
    exact: exact.Exact
    inputs: dict[str, Any]
    twin: Callable[..., Tensor] | None = None
    elementwise: bool = False
    by_row: bool = False
    params: Params = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The errors of one row for inputs of one kind; ``twin`` is ``None`` if the layer has no twin."""

    row: str
    kind: str
    ours: Errors
    twin: Errors | None

    def faults(self, floor: float = 2.0) -> list[str]:
        """Describe violations of the rule: NaN, or an error above both ``floor`` ulps and twice the twin's error."""
        return [
            f"{self.row}, {self.kind}: {part} of {ours:.3g} ulps, torch {'-' if twin is None else f'{twin:.3g}'}"
            for part, ours, twin in zip(("value", "gradient"), self.ours, self.twin or (None, None), strict=True)
            if math.isnan(ours) or (twin is not None and ours > floor and not (math.isnan(twin) or ours <= 2 * twin))
        ]


def judge(row: Row, kind: str) -> Judged:
    """Measure a row for its inputs of one kind."""
    given = row.inputs[kind]
    x = given if isinstance(given, tuple) else (given,)
    y = row.layer(row.params, given)
    gy = weights_like(y)
    value, slopes = exact.value_of(row.exact, x), exact.gradients_of(row.exact, x, gy, elementwise=row.elementwise)
    y, cache = row.layer.apply(row.params, given)
    gx = row.layer.vjp(row.params, cache, gy)[1]
    ours = ulps_off(y, value, by_row=row.by_row), _worst(gx if isinstance(given, tuple) else (gx,), slopes, row.by_row)
    twin = None
    if row.twin is not None:
        y, gx = by_autograd(row.twin, x, gy)
        twin = ulps_off(y, value, by_row=row.by_row), _worst(gx, slopes, row.by_row)
    return Judged(row.name, kind, ours, twin)


def judge_all(rows: list[Row]) -> list[Judged]:
    """Measure each row for each kind of its inputs."""
    return [judge(row, kind) for row in rows for kind in row.inputs]


def weights_like(y: Tensor) -> Tensor:
    """Return a gy of powers of 2 with both signs, which are exact in every dtype."""
    powers = torch.tensor([1.0, -0.5, 2.0, 0.25, -1.0], dtype=y.dtype)
    return powers.repeat(y.numel() // 5 + 1)[: y.numel()].reshape(y.shape)


def by_autograd(twin: Callable[..., Tensor], x: tuple[Tensor, ...], gy: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return torch's y and the gradients of all floating tensors of x."""
    leaves = [part.clone().requires_grad_() if part.is_floating_point() else part for part in x]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    y = twin(*leaves)
    found = iter(torch.autograd.grad(y, wanted, gy.reshape(y.shape), allow_unused=True))
    return y.detach(), tuple(next(found) if leaf.requires_grad else None for leaf in leaves)


def _worst(found: tuple[Tensor | None, ...], slopes: list[Any], by_row: bool) -> float:
    """Return the largest error of the gradients; a missing gradient is not measured."""
    errors = [
        ulps_off(g, slope, by_row=by_row) for g, slope in zip(found, slopes, strict=True) if g is not None and slope is not None
    ]
    return _largest(errors)


def _largest(errors: list[float]) -> float:
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def ulps_off(found: Tensor, expected: Any, *, by_row: bool = False) -> float:
    """Return the largest error of a tensor, in ulps of its dtype at each element, or at the largest of each row."""
    sizes = np.asarray(np.abs(expected.reshape(tuple(found.shape))), dtype=object)
    sizes = np.broadcast_to(sizes.max(-1, keepdims=True), sizes.shape) if by_row and sizes.size and sizes.ndim else sizes
    rows = zip(tree.map(Tensor.double, found).flatten().tolist(), expected.flatten(), sizes.flatten(), strict=True)
    return _largest([_ulps(got, want, size, found.dtype) for got, want, size in rows])


def _ulps(got: float, want: Any, size: Any, dtype: torch.dtype) -> float:
    limits = torch.finfo(dtype)
    if math.isnan(got):
        return math.nan
    beyond = abs(want) >= limits.max * (1 + limits.eps / 4)  # rounds to infinity
    if beyond or math.isinf(got):
        return 0.0 if beyond and math.isinf(got) and (got > 0) == (want > 0) else math.inf
    exponent = mpmath.frexp(max(size, mpmath.mpf(limits.tiny)))[1]
    return float(abs(got - want) / (mpmath.ldexp(limits.eps, exponent - 1)))
