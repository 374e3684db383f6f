"""Softmaxes, LogSumExp and gated units, where y depends on several elements of x: references, twins and inputs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.activations import gelu, sigmoid, silu
from examples.extremes.exact import Array, Exact, by_element, exp, log
from examples.extremes.judging import Row

INF = math.inf
LARGEST = torch.finfo(torch.float32).max


def rows(*numbers: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor with these rows."""
    return torch.tensor(numbers, dtype=dtype)


KINDS = {
    "ordinary": rows([0.3, -1.2, 2.5, 0.7], [5.0, 4.0, -3.0, 0.1]),
    "spread": rows([-20.0, 0.0, -50.0, 1.0], [80.0, -80.0, 81.0, 20.0]),
    "huge": rows([1e20, 1e4, -1e30, 0.0], [LARGEST, -LARGEST, 1.0, 1e38]),
    "tiny": rows([1e-30, 1e-40, 0.0, -1e-38]),
    "one class": rows([3.0], [-1e30]),
    "some -inf": rows([-INF, 1.0, 2.0, 0.5], [-INF, -INF, -1e4, -INF]),
    "one +inf": rows([INF, 1.0, 2.0, -1.0], [-INF, 0.5, INF, LARGEST / 4]),
    "float16": rows([1e4, 9990.0, -65504.0, 0.0], [1.0, 2.0, -0.5, 0.3], dtype=torch.float16),
    "bfloat16": rows([20.0, 1e20, -1e30, 0.0], [1.0, 2.0, -0.5, 0.3], dtype=torch.bfloat16),
    "float16 inf": rows([INF, 9990.0, -65504.0, 0.0], [1.0, -INF, -0.5, 0.3], dtype=torch.float16),
}
# If the sum is -inf, equal terms have equal shares.
SUMMED = {**KINDS, "all -inf": rows([-INF, -INF, -INF])}


def halves(a: list[float], b: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return all pairs of an a and a b, as rows (a b)."""
    return torch.tensor([[x, y] for x in a for y in b], dtype=dtype)


SMALL, WIDE = [0.7, -1.3], [0.4, -0.7, 2.9, -3.7]
GATED = {
    "ordinary": halves(SMALL, WIDE),
    "spread": halves(SMALL, [20.0, -20.0, 80.0, -100.0]),
    "huge": halves(SMALL, [1e20, -1e20, LARGEST / 4, -LARGEST]),
    "tiny": halves([1e-30, 1e-40], [1e-30, -1e-40]),
    "some -inf": halves(SMALL, [-INF]),
    "one +inf": halves(SMALL, [INF]),
    "float16": halves(SMALL, [*WIDE, 1e4, -1e4], dtype=torch.float16),
    "bfloat16": halves(SMALL, [*WIDE, 1e20, -1e20], dtype=torch.bfloat16),
    "float16 inf": halves(SMALL, [INF, -INF], dtype=torch.float16),
}


def softmax(x: Array) -> Array:
    """Return eˣ / Σ eˣ of each row."""
    e = exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logsumexp(x: Array) -> Array:
    """Return log Σ eˣ of each row."""
    top = x.max(-1, keepdims=True)
    return (top + log(exp(x - top).sum(-1, keepdims=True)))[..., 0]


def groups(x: Array) -> Array:
    """Return the softmax of the first element by itself, which is 1, and of all others."""
    return np.concatenate([softmax(x[..., :1]), softmax(x[..., 1:])], -1)


def split_softmax(x: Tensor) -> Tensor:
    """Compute ``groups`` with torch."""
    return torch.cat([torch.softmax(x[..., :1], -1), torch.softmax(x[..., 1:], -1)], -1)


def gated(f: Callable[[Any], Any]) -> Exact:
    """Return the gated unit a ⊙ f(b) as a reference."""
    return lambda x: x[..., :1] * by_element(f)(x[..., 1:])


def gated_twin(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the gated unit a ⊙ f(b) in torch."""
    return lambda x: x[..., :1] * f(x[..., 1:])


def row(layer: fn.Layer, exact: Exact, twin: Callable[..., Tensor], kinds: dict[str, Tensor] = KINDS) -> Row:
    """Return the row of a layer without params."""
    return Row(repr(layer), layer, exact, kinds, twin)


WIDER = {kind: x for kind, x in KINDS.items() if x.shape[-1] > 1}
ROWS = [
    row(fn.Softmax(), softmax, nn.Softmax(-1)),
    row(fn.Softmax(temperature=0.5), lambda x: softmax(2 * x), lambda x: torch.softmax(x / 0.5, -1)),
    row(fn.Softmin(), lambda x: softmax(-x), nn.Softmin(-1), {k: -x for k, x in KINDS.items()}),
    row(fn.MultiSoftmax((1, 3)), groups, split_softmax, WIDER),
    row(fn.LogSoftmax(), lambda x: x - logsumexp(x)[..., None], nn.LogSoftmax(-1)),
    row(fn.LogSumExp(), logsumexp, lambda x: torch.logsumexp(x, -1), SUMMED),
    row(fn.GLU(), gated(sigmoid), nn.GLU(), GATED),
    row(fn.SwiGLU(), gated(silu), gated_twin(nn.SiLU()), GATED),
    row(fn.GEGLU(), gated(gelu), gated_twin(nn.GELU()), GATED),
    row(fn.ReGLU(), gated(lambda x: max(x, 0)), gated_twin(nn.ReLU()), GATED),
]
