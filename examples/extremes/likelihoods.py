"""Losses of log-probabilities, rates and scores: references, twins and inputs. Terms are measured one by one, without sums."""

from collections.abc import Callable
from typing import Any

import mpmath
from mpmath import mpf
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.exact import Exact, by_element
from examples.extremes.judging import Row
from examples.extremes.losses import BRAIN, HALF, INF, LARGEST, labelled, pair, softplus

DISTRIBUTIONS = {
    "ordinary": pair([-0.3, -1.2, -2.5, -0.7], [0.25, 0.5, 0.2, 0.05]),
    "tiny": pair([-50.0, -80.0, -1e-30], [3e-20, 2e-30, 1e-38]),
    "huge": pair([-1e20, -1e30], [0.5, 0.25]),
    "-inf": pair([-INF, -1.0], [0.5, 0.5]),
    "float16": pair([-0.3, -1e4, -2.5], [0.25, 0.5, 1e-4], HALF),
    "bfloat16": pair([-0.3, -1e20, -2.5], [0.25, 0.5, 1e-30], BRAIN),
}
LOG_DISTRIBUTIONS = {
    "ordinary": pair([-0.3, -1.2, -2.5, -0.7], [-1.5, -0.7, -1.6, -3.0]),
    "tiny": pair([-50.0, -80.0, -1e-30], [-46.0, -70.0, -85.0]),
    "huge": pair([-1e20, -1e30], [-0.5, -0.25]),
    "-inf": pair([-INF, -1.0], [-0.5, -INF]),
    "float16": pair([-0.3, -1e4, -2.5], [-1.5, -0.7, -9.0], HALF),
    "bfloat16": pair([-0.3, -1e20, -2.5], [-1.5, -0.7, -60.0], BRAIN),
}
LOG_RATES = {
    "ordinary": pair([0.3, -1.2, 2.5, 0.7], [1.0, 0.0, 12.0, 2.5]),
    "tiny": pair([-80.0, 1e-30, -1e-40], [3.0, 2.0, 1.0]),
    "huge": pair([80.0, -1e20, 88.0], [1e20, 3.0, 1e30]),
    "inf": pair([INF], [3.0]),
    "-inf": pair([-INF], [2.0]),
    "float16": pair([0.3, -20.0, 10.0], [1.0, 2.0, 100.0], HALF),
    "bfloat16": pair([0.3, -80.0, 80.0], [1.0, 2.0, 1e20], BRAIN),
}
RATES = {
    "ordinary": pair([0.3, 1.2, 2.5, 0.7], [1.5, 0.0, 12.0, 2.5]),
    "tiny": pair([0.0, 1e-30, 1e-8], [3.0, 2.0, 1.5]),
    "huge": pair([1e20, LARGEST / 8, 1e10], [1e20, 3.0, 1e30]),
    "float16": pair([0.3, 1e4, 10.0], [1.5, 2.0, 100.0], HALF),
    "bfloat16": pair([0.3, 1e20, 80.0], [1.5, 2.0, 1e20], BRAIN),
}
SCORES = {
    "ordinary": labelled([0.3, -1.2, 2.5, 0.7], [1, -1, -1, 1]),
    "tails, right": labelled([20.0, -20.0, 80.0, -100.0], [1, -1, 1, -1]),
    "tails, wrong": labelled([20.0, -20.0, 80.0, -100.0], [-1, 1, -1, 1]),
    "huge": labelled([1e20, -1e30, LARGEST / 8], [1, 1, -1]),
    "±inf": labelled([INF, -INF, INF], [1, -1, -1]),
    "float16": labelled([0.3, -1.2, 20.0, 1e4], [1, -1, -1, 1], HALF),
    "bfloat16": labelled([0.3, -1.2, 20.0, 1e20], [1, -1, -1, 1], BRAIN),
}
EPS = mpf(1e-8)  # as in torch, a float64


@by_element
def stirling(t: Any) -> Any:
    """Return t log t - t + ½ log 2πt where t > 1, else 0."""
    return t * mpmath.log(t) - t + mpmath.log(2 * mpmath.pi * t) / 2 if t > 1 else mpf(0)


def terms(loss: fn.Loss, exact: Exact, twin: Callable[..., Tensor] | None, inputs: dict[str, Any]) -> Row:
    """Return the row of a loss without a reduction."""
    return Row(repr(loss), loss.as_layer(), exact, inputs, twin)


log, exp, relu = by_element(mpmath.log), by_element(mpmath.exp), by_element(lambda x: max(x, mpf(0)))
ROWS = [
    terms(fn.KLDiv("none"), lambda y, t: t * (log(t) - y), nn.KLDivLoss(reduction="none"), DISTRIBUTIONS),
    terms(
        fn.KLDiv("none", log_target=True),
        lambda y, t: exp(t) * (t - y),
        nn.KLDivLoss(reduction="none", log_target=True),
        LOG_DISTRIBUTIONS,
    ),
    terms(fn.PoissonNLL(reduction="none"), lambda y, t: exp(y) - t * y, nn.PoissonNLLLoss(reduction="none"), LOG_RATES),
    terms(
        fn.PoissonNLL(log_input=False, full=True, reduction="none"),
        lambda y, t: y - t * log(y + EPS) + stirling(t),
        nn.PoissonNLLLoss(log_input=False, full=True, reduction="none"),
        RATES,
    ),
    terms(fn.SoftMargin("none"), lambda y, t: by_element(softplus)(-t * y), nn.SoftMarginLoss(reduction="none"), SCORES),
    terms(
        fn.HingeEmbedding(margin=2.0, reduction="none"),
        lambda y, t: (1 + t) / mpf(2) * y + (1 - t) / mpf(2) * relu(2 - y),
        nn.HingeEmbeddingLoss(2.0, reduction="none"),
        SCORES,
    ),
]
