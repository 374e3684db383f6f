"""Reductions, distances, poolings and attention: references, twins and inputs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.exact import Array, Exact, sqrt
from examples.extremes.judging import Row
from examples.extremes.norms import KINDS, LARGEST, length, scaled, unit
from examples.extremes.softmaxes import rows, softmax

INF = float("inf")

MEANS = {
    **{name: x for name, x in KINDS.items() if name not in ("several", "largest")},
    "near the largest": rows([LARGEST / 5, LARGEST / 5, -LARGEST, LARGEST / 7]),
    "float16 largest": rows([6e4, 6e4, 5e4, -6e4], dtype=torch.float16),
}
SPREADS = {name: x for name, x in KINDS.items() if name != "zeros"}
EXTREMES = {
    "ordinary": scaled(1.0),
    "3e-30": scaled(3e-30),
    "largest": scaled(LARGEST / 3),
    "some -inf": rows([-INF, 1.0, 2.0, 0.5]),
    "one +inf": rows([INF, 1.0, 2.0, 0.5]),
    "float16": scaled(1e4, torch.float16),
}


def var(x: Array) -> Array:
    """Return the unbiased variance of each row."""
    mean = x.sum(-1, keepdims=True) / x.shape[-1]
    return ((x - mean) ** 2).sum(-1) / (x.shape[-1] - 1)


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x, and x with its rows in another order."""
    return x, x.roll(1, 0).flip(-1)


PAIRS = {name: pairs(x) for name, x in KINDS.items() if name != "zeros"}
ZERO_PAIRS = {
    "zeros": (rows([0.0] * 4, [0.0] * 4), rows([1.0, 2.0, -1.0, 0.5], [1e20, 2e20, 1e20, 3e20])),
    "float16 zeros": (rows([0.0] * 4, dtype=torch.float16), rows([0.0] * 4, dtype=torch.float16)),
}


def distance(p: float) -> Exact:
    """Return the function ‖u - v + ε‖ₚ of each row."""
    return lambda u, v: length(u - v + 1e-6, p)[..., 0]


WINDOWS = {name: x.unsqueeze(0) for name, x in MEANS.items()}
POWERS = {name: x.abs().unsqueeze(0) for name, x in KINDS.items() if name not in ("zeros", "largest")}


def windows(f: Exact) -> Exact:
    """Return a function of adjacent windows of two."""
    return lambda x: f(x.reshape(*x.shape[:-1], -1, 2))


def power_sum(p: float) -> Exact:
    """Return the p-norm of each window of two."""
    return windows(lambda x: length(x, p)[..., 0])


SCORES = {
    "ordinary": [scaled(0.5)[None] for _ in range(3)],
    "3e-30": [scaled(3e-30)[None] for _ in range(3)],
    "values of 1e30": [*[scaled(0.5)[None] for _ in range(2)], scaled(1e30)[None]],
    "float16": [scaled(0.5, torch.float16)[None] for _ in range(3)],
    "bfloat16": [scaled(0.5, torch.bfloat16)[None] for _ in range(3)],
}
PLAIN = {name: (q, k.roll(1, 1), v.flip(1)) for name, (q, k, v) in SCORES.items()}
BIASED = {name: (*qkv, torch.full((3, 3), -100.0, dtype=qkv[0].dtype)) for name, qkv in PLAIN.items()}


def attention(q: Array, k: Array, v: Array, bias: Any = 0) -> Array:
    """Return softmax(q kᵀ / 2 + bias) v."""
    return np.matmul(softmax(np.matmul(q, k.swapaxes(-1, -2)) / 2 + bias), v)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return torch's attention with one head."""
    return nn.functional.scaled_dot_product_attention(q, k, v, mask)


def only(inputs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the inputs of some kinds."""
    return {name: inputs[name] for name in names}


def without(inputs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the inputs of all other kinds."""
    return {name: x for name, x in inputs.items() if name not in names}


def batch(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs with a batch axis."""
    return {name: x.unsqueeze(0) for name, x in inputs.items()}


PRODUCTS = only(KINDS, "ordinary", "1e10", "float16", "bfloat16")
COSINES = {**PAIRS, **ZERO_PAIRS}
TINY = 1e-12

REDUCTIONS = [
    Row("Sum", fn.Sum(-1), lambda x: x.sum(-1), MEANS, lambda x: x.sum(-1)),
    Row("Mean", fn.Mean(-1), lambda x: x.sum(-1) / 4, MEANS, lambda x: x.mean(-1)),
    Row("Prod", fn.Prod(-1), lambda x: x.prod(-1), PRODUCTS, lambda x: x.prod(-1)),
    Row("Max", fn.Max(-1), lambda x: x.max(-1), EXTREMES, lambda x: x.amax(-1)),
    Row("Min", fn.Min(-1), lambda x: x.min(-1), EXTREMES, lambda x: x.amin(-1)),
    Row("Var", fn.Var(-1), var, without(SPREADS, "largest", "several"), lambda x: x.var(-1)),
    Row("Std", fn.Std(-1), lambda x: sqrt(var(x)), SPREADS, lambda x: x.std(-1)),
]
DISTANCES = [
    Row(
        "CosineSimilarity",
        fn.CosineSimilarity(eps=TINY),
        lambda u, v: (unit(u) * unit(v)).sum(-1),
        COSINES,
        nn.CosineSimilarity(eps=TINY),
        by_row=True,
    ),
    Row("PairwiseDistance", fn.PairwiseDistance(), distance(2), PAIRS, nn.PairwiseDistance(), by_row=True),
    Row("PairwiseDistance, p 3", fn.PairwiseDistance(3.0), distance(3), PAIRS, nn.PairwiseDistance(3.0), by_row=True),
]
POOLS = [
    Row("AvgPool1d", fn.AvgPool1d(2), windows(lambda x: x.sum(-1) / 2), WINDOWS, nn.AvgPool1d(2)),
    Row("SumPool1d", fn.SumPool1d(2), windows(lambda x: x.sum(-1)), WINDOWS),
    Row("GlobalAvgPool", fn.GlobalAvgPool(), lambda x: x.sum(-1) / 4, WINDOWS, lambda x: x.mean(-1)),
    Row("MaxPool1d", fn.MaxPool1d(2), windows(lambda x: x.max(-1)), batch(EXTREMES), nn.MaxPool1d(2)),
    Row("MinPool1d", fn.MinPool1d(2), windows(lambda x: x.min(-1)), batch(EXTREMES)),
    Row("LPPool1d, p 2", fn.LPPool1d(2.0, 2), power_sum(2), POWERS, nn.LPPool1d(2.0, 2)),
    Row("LPPool1d, p 3", fn.LPPool1d(3.0, 2), power_sum(3), POWERS, nn.LPPool1d(3.0, 2)),
    Row("LPPool1d, p 0.5", fn.LPPool1d(0.5, 2), power_sum(0.5), POWERS, nn.LPPool1d(0.5, 2)),
]
ATTENTION = [
    Row("attention", fn.ScaledDotProductAttention(), attention, PLAIN, scaled_dot_product, by_row=True),
    Row("attention, bias -100", fn.ScaledDotProductAttention(), attention, BIASED, scaled_dot_product, by_row=True),
]
ROWS = [*REDUCTIONS, *DISTANCES, *POOLS, *ATTENTION]
