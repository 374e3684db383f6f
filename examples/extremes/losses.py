"""Losses on pairs (y, target): references, twins and inputs. The target's gradient is measured if layer and twin have one."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from mpmath import mpf
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.exact import Array, Exact, by_element
from examples.extremes.judging import Row
from examples.extremes.softmaxes import logsumexp

INF, NAN = math.inf, math.nan
LARGEST = torch.finfo(torch.float32).max
HALF, BRAIN = torch.float16, torch.bfloat16


def pair(y: list[Any], target: list[Any], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return y and a target of the same dtype."""
    return torch.tensor(y, dtype=dtype), torch.tensor(target, dtype=dtype)


def labelled(y: list[Any], labels: list[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return logits and labels."""
    return torch.tensor(y, dtype=dtype), torch.tensor(labels)


DISTANCES = {
    "ordinary": pair([0.3, -1.2, 2.5, 0.7], [1.0, 0.2, -0.4, 0.9]),
    "tiny": pair([1e-30, -1e-20, 1e-40], [0.0, 1e-30, -1e-40]),
    "huge": pair([1e20, -1e30], [-1e20, 1e18]),
    "large": pair([1e18, -1e10, 1e4], [-1e18, 1e12, 3.0]),
    "±inf": pair([INF, -INF], [1.0, 2.0]),
    "float16": pair([1e4, -200.0, 0.5], [9990.0, 10.0, 0.25], HALF),
    "float16 1e4": pair([1e4, -1e4, 0.5], [-1e4, 1e4, 0.25], HALF),
    "bfloat16": pair([1e20, -200.0, 0.5], [1e18, 10.0, 0.25], BRAIN),
}
PROBABILITIES = {
    "ordinary": pair([0.3, 0.9, 0.5, 0.01], [1.0, 0.2, 0.4, 0.0]),
    "tails": pair([1e-10, 1 - 6e-8, 1e-7, 0.999], [1.0, 0.0, 0.0, 1.0]),
    "tiny": pair([1e-20, 1e-30, 1e-40], [0.0, 0.0, 0.0]),
    "0 and 1, right": pair([0.0, 1.0], [0.0, 1.0]),
    "float16": pair([0.3, 0.9, 6e-8, 0.999], [1.0, 0.2, 0.0, 1.0], HALF),
    "float16 0 and 1": pair([0.0, 1.0], [0.0, 1.0], HALF),
    "bfloat16": pair([0.3, 0.9, 1e-30, 0.99], [1.0, 0.2, 0.0, 1.0], BRAIN),
    "bfloat16 0 and 1": pair([0.0, 1.0], [0.0, 1.0], BRAIN),
}
LOGITS = {
    "ordinary": pair([0.3, -1.2, 2.5, 0.7], [1.0, 0.2, 0.4, 0.0]),
    "tails, right": pair([20.0, -20.0, 80.0, -100.0], [1.0, 0.0, 1.0, 0.0]),
    "tails, wrong": pair([20.0, -20.0, 80.0, -100.0], [0.0, 1.0, 0.5, 1.0]),
    "tiny": pair([1e-30, -1e-40], [1.0, 0.25]),
    "huge": pair([1e20, -1e30, LARGEST / 8], [1.0, 1.0, 0.5]),
    "±inf, right": pair([INF, -INF], [1.0, 0.0]),
    "±inf, wrong": pair([INF, -INF], [0.0, 0.5]),
    "float16": pair([0.3, -1.2, 20.0, 1e4, -1e4], [1.0, 0.2, 0.4, 0.0, 0.0], HALF),
    "bfloat16": pair([0.3, -1.2, 20.0, 1e20, -1e20], [1.0, 0.2, 0.4, 0.0, 0.0], BRAIN),
}
CLASSES = {
    "ordinary": labelled([[0.3, -1.2, 2.5], [0.7, 4.0, 0.1]], [0, 1]),
    "tails": labelled([[20.0, -20.0, 0.0], [80.0, -80.0, 50.0]], [0, 1]),
    "huge": labelled([[1e20, 0.0, -1e30], [1.0, LARGEST / 8, 2.0]], [1, 1]),
    "tiny": labelled([[1e-30, 1e-40, 0.0]], [0]),
    "one class": labelled([[3.0], [-1e30]], [0, 0]),
    "-inf elsewhere": labelled([[-INF, 1.0, 2.0], [-INF, -INF, 0.5]], [1, 2]),
    "-inf at the label": labelled([[-INF, 1.0, 2.0], [1.0, 2.0, 0.5]], [0, 2]),
    "+inf at the label": labelled([[INF, 1.0, 2.0], [1.0, 2.0, 0.5]], [0, 2]),
    "+inf elsewhere": labelled([[INF, 1.0, 2.0], [1.0, 2.0, 0.5]], [1, 2]),
    "NaN ignored": labelled([[NAN, INF, 2.0], [1.0, 2.0, 0.5]], [-100, 2]),
    "all ignored": labelled([[1.0, INF, 2.0], [1.0, 2.0, 0.5]], [-100, -100]),
    "float16": labelled([[1e4, 9990.0, -65504.0], [1.0, 2.0, -0.5]], [1, 2], HALF),
    "bfloat16": labelled([[20.0, 1e20, -1e30], [1.0, 2.0, -0.5]], [1, 2], BRAIN),
}
SHARES = {
    "ordinary": pair([[0.3, -1.2, 2.5], [0.7, 4.0, 0.1]], [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]),
    "huge": pair([[1e20, 0.0, -1e30]], [[0.5, 0.5, 0.0]]),
    "-inf of share 0": pair([[-INF, 1.0, 2.0]], [[0.0, 0.5, 0.5]]),
    "+inf of share 1": pair([[INF, 1.0, 2.0]], [[1.0, 0.0, 0.0]]),
    "float16": pair([[1e4, 9990.0, -65504.0]], [[0.5, 0.5, 0.0]], HALF),
}


def softplus(x: Any) -> Any:
    """Return log(1 + eˣ) of each element."""
    return mpmath.log1p(mpmath.exp(-abs(x))) + max(x, 0)


@by_element
def huber(d: Any) -> Any:
    """Return ½ d² up to 1, and d - ½ beyond, for a d of at least 0."""
    return d * d / 2 if d < 1 else d - mpf(1) / 2


@by_element
def log_cosh(d: Any) -> Any:
    """Return log cosh d for a d of at least 0."""
    return d + mpmath.log1p(mpmath.expm1(-2 * d) / 2)


def bce(y: Array, t: Array) -> Any:
    """Return the mean of -t log y - (1 - t) log(1 - y), the logarithms at least -100."""
    log = by_element(lambda p: mpf(-100) if p <= 0 else max(mpmath.log(p), mpf(-100)))
    return (-t * log(y) - (1 - t) * log(1 - y)).mean()


def bce_with_logits(y: Array, t: Array, w: float = 1) -> Any:
    """Return the mean of -w t log σ(y) - (1 - t) log σ(-y)."""
    return (w * t * by_element(softplus)(-y) + (1 - t) * by_element(softplus)(y)).mean()


def cross_entropy(y: Array, labels: Array) -> Any:
    """Return the mean of -log p at the labels; ignored rows do not count, and the mean of no rows is 0."""
    kept = [row for row, label in enumerate(labels) if label >= 0]
    terms = [logsumexp(y[row]) - y[row][labels[row]] for row in kept]
    return sum(terms, mpf(0)) / max(len(kept), 1)


def expected_cross_entropy(y: Array, t: Array) -> Any:
    """Return the mean of -Σ t log p over rows."""
    return (t * (logsumexp(y)[..., None] - y)).sum() / len(y)


def row(loss: fn.Loss, exact: Exact, twin: Callable[..., Tensor] | None, inputs: dict[str, Any]) -> Row:
    """Return the row of a loss."""
    name = f"{loss!r}, of probabilities" if inputs is SHARES else repr(loss)
    return Row(name, loss.as_layer(), lambda y, t: np.asarray(exact(y, t), dtype=object), inputs, twin)


ROWS = [
    row(fn.MSE(), lambda y, t: ((y - t) ** 2).mean(), nn.MSELoss(), DISTANCES),
    row(fn.L1(), lambda y, t: abs(y - t).mean(), nn.L1Loss(), DISTANCES),
    row(fn.L2(), lambda y, t: ((y - t) ** 2).mean() / 2, lambda y, t: 0.5 * nn.functional.mse_loss(y, t), DISTANCES),
    row(fn.Huber(), lambda y, t: huber(abs(y - t)).mean(), nn.HuberLoss(), DISTANCES),
    row(fn.SmoothL1(beta=0.5), lambda y, t: huber(2 * abs(y - t)).mean() / 2, nn.SmoothL1Loss(beta=0.5), DISTANCES),
    row(fn.LogCosh(), lambda y, t: log_cosh(abs(y - t)).mean(), None, DISTANCES),
    row(fn.BCE(), bce, nn.BCELoss(), PROBABILITIES),
    row(fn.BCEWithLogits(), bce_with_logits, nn.BCEWithLogitsLoss(), LOGITS),
    row(
        fn.BCEWithLogits(pos_weight=3.0),
        lambda y, t: bce_with_logits(y, t, 3),
        lambda y, t: nn.functional.binary_cross_entropy_with_logits(y, t, pos_weight=torch.tensor(3.0, dtype=y.dtype)),
        LOGITS,
    ),
    row(fn.CrossEntropy(), cross_entropy, nn.CrossEntropyLoss(), CLASSES),
    row(fn.CrossEntropy(), expected_cross_entropy, nn.CrossEntropyLoss(), SHARES),
]
