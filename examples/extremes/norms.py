"""Norms, and scaling to unit length: references, twins and inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.exact import Array, Exact, by_element, sqrt
from examples.extremes.judging import Row
from examples.extremes.softmaxes import rows

EPS = 1e-5
LARGEST = torch.finfo(torch.float32).max

SHAPE = [0.3, -1.2, 2.5, 0.7], [0.5, 0.4, -3.0, 0.1], [0.2, 0.9, -0.8, -0.6]


def scaled(scale: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the same rows, scaled."""
    return (torch.tensor(SHAPE, dtype=torch.float64) * scale).to(dtype)


KINDS = {
    "ordinary": scaled(1.0),
    "zeros": rows([0.0] * 4, [0.0] * 4, [0.0] * 4),
    "subnormal": scaled(1e-40),
    "3e-30": scaled(3e-30),
    "1e10": scaled(1e10),
    "1e15": scaled(1e15),
    "1e20": scaled(1e20),
    "1e30": scaled(1e30),
    "largest": scaled(LARGEST / 3),
    "several": scaled(1.0) * torch.tensor([[1.0], [1e20], [1e-20]]),
    "float16": scaled(1.0, torch.float16),
    "float16 1e4": scaled(1e4, torch.float16),
    "bfloat16": scaled(1.0, torch.bfloat16),
    "bfloat16 1e20": scaled(1e20, torch.bfloat16),
}
# Batch norm sees all sizes of a channel in one batch, and only the largest are left in the result.
BATCHES = {name: x for name, x in KINDS.items() if name != "several"}


def standardized(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Return (x - μ) / √(σ² + ε) along one axis."""
    mean = x.sum(axis, keepdims=True) / x.shape[axis]
    variance = ((x - mean) ** 2).sum(axis, keepdims=True) / x.shape[axis]
    return (x - mean) / sqrt(variance + EPS)


def rms(x: Array) -> Array:
    """Return x / √(x̄² + ε) of each row."""
    return x / sqrt((x**2).sum(-1, keepdims=True) / x.shape[-1] + EPS)


def length(x: Array, p: float = 2) -> Array:
    """Return the p-norm of each row."""
    total = (by_element(abs)(x) ** p).sum(-1, keepdims=True)
    return by_element(lambda number: number ** (1 / p) if number else number)(total) if p != 2 else sqrt(total)


def unit(x: Array) -> Array:
    """Return x / max(‖x‖, ε) of each row."""
    return x / by_element(lambda number: max(number, 1e-12))(length(x))


def response(x: Array) -> Array:
    """Return x / (1 + ε Σ x² / 3)^(1/2), over three neighbors."""
    squares = x**2
    around = squares.copy()
    around[..., 1:] += squares[..., :-1]
    around[..., :-1] += squares[..., 1:]
    return x / sqrt(1 + EPS * around / 3)


def weight_of(g: Array, v: Array) -> Array:
    """Return g v / ‖v‖, in which a length of 0 counts as 1."""
    return g * v / by_element(lambda number: number or 1)(length(v))


DIRECTIONS = {
    name: (torch.tensor([[0.5], [2.0], [-1.0]]), x) for name, x in KINDS.items() if "16" not in name and name != "zeros"
}


def row(name: str, layer: fn.Layer, exact: Exact, twin: Callable[..., Tensor] | None, inputs: dict[str, Any] = KINDS) -> Row:
    """Return a row whose errors are measured in ulps of the largest element in each row of x: terms of the others cancel."""
    return Row(name, layer, exact, inputs, twin, by_row=True)


def by_rows(x: Array) -> Array:
    """Standardize each row of x."""
    return standardized(x, -1)


BATCH_NORM = {"affine": False, "track_running_stats": False}

ROWS = [
    row("LayerNorm", fn.LayerNorm(4, EPS, False), by_rows, nn.LayerNorm(4, EPS, False)),
    row("RMSNorm", fn.RMSNorm(4, EPS, False), rms, nn.RMSNorm(4, EPS, False)),
    row("GroupNorm", fn.GroupNorm(1, 4, EPS, False), by_rows, nn.GroupNorm(1, 4, EPS, False)),
    row(
        "InstanceNorm1d",
        fn.InstanceNorm1d(3, EPS),
        by_rows,
        nn.InstanceNorm1d(3, EPS),
        {name: x.unsqueeze(0) for name, x in KINDS.items()},
    ),
    row(
        "BatchNorm1d",
        fn.BatchNorm1d(4, EPS, **BATCH_NORM),
        lambda x: standardized(x, 0),
        nn.BatchNorm1d(4, EPS, **BATCH_NORM),
        BATCHES,
    ),
    row("Standardize", fn.Standardize(), by_rows, None),
    row("Normalize", fn.Normalize(), unit, nn.functional.normalize),
    row(
        "LocalResponseNorm",
        fn.LocalResponseNorm(3, EPS, 0.5),
        lambda x: response(x.swapaxes(1, 2)).swapaxes(1, 2),
        nn.LocalResponseNorm(3, EPS, 0.5),
        {name: x.unsqueeze(0).mT for name, x in KINDS.items()},
    ),
    row(
        "weight_norm",
        fn.weight_norm(fn.Linear(4, 3)).parametrization,
        weight_of,
        lambda g, v: torch.ops.aten._weight_norm(v, g),
        DIRECTIONS,
    ),
]
