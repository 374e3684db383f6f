"""Elementwise activations: references, twins and inputs."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import torch
from mpmath import mpf
from torch import Tensor, nn

import funcnet as fn
from examples.extremes.exact import by_element
from examples.extremes.judging import Row

INF = math.inf
ORDINARY = (0.1, 0.7, 1.3, 2.9, 3.7, 5.5)
SELU_ALPHA, SELU_SCALE = mpf("1.6732632423543772848170429916717"), mpf("1.0507009873554804934193349852946")


def both(*numbers: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the numbers with both signs."""
    return torch.tensor([*numbers, *[-number for number in numbers]], dtype=dtype)


KINDS = {
    "ordinary": both(*ORDINARY),
    "tails": both(10, 20, 50, 80, 100),
    "1e-30": both(1e-8, 1e-20, 1e-30),
    "subnormal": both(1e-39, 1e-42, 1.4e-45),
    "huge": both(1e4, 1e10, 1e20, 1e30, torch.finfo(torch.float32).max),
    "±inf": both(INF),
    "float16": both(*ORDINARY, 1e4, 65504, 6e-8, dtype=torch.float16),
    "float16 ±inf": both(INF, dtype=torch.float16),
    "bfloat16": both(*ORDINARY, 20, 1e20, 1e-30, dtype=torch.bfloat16),
    "bfloat16 ±inf": both(INF, dtype=torch.bfloat16),
}
FINITE = {kind: x for kind, x in KINDS.items() if "inf" not in kind}


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e⁻ˣ)."""
    return 1 / (1 + mpmath.exp(-x))


def normal(x: Any) -> Any:
    """Return Φ(x), the distribution function of N(0, 1)."""
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def softplus(x: Any) -> Any:
    """Return log(1 + eˣ)."""
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


def elu(x: Any, alpha: Any = 1, width: Any = 1) -> Any:
    """Return x where x is positive, else α (eˣᐟʷ - 1)."""
    return x if x > 0 else alpha * mpmath.expm1(x / width)


def gelu(x: Any) -> Any:
    """Return x Φ(x)."""
    return x * normal(x)


def silu(x: Any) -> Any:
    """Return x σ(x)."""
    return x * sigmoid(x)


def gelu_by_tanh(x: Any) -> Any:
    """Return the GELU of GPT-2."""
    return x * sigmoid(2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpf(0.044715) * x**3))


def bounded(x: Any, low: Any, high: Any) -> Any:
    """Return the number within the bounds that is nearest to x."""
    return min(max(low, x), high)


def dish(x: Any) -> Any:
    """Return x (1 + x / √(1 + x²)) / 2, without cancellation."""
    s = mpmath.sqrt(1 + x * x)
    return max(x, 0) - abs(x) / (2 * s * (s + abs(x)))


def squareplus(x: Any, b: Any = 4) -> Any:
    """Return (x + √(x² + b)) / 2, without cancellation."""
    return max(x, 0) + b / (2 * (mpmath.sqrt(x * x + b) + abs(x)))


def softshrink(x: Any, l: Any = 0.5) -> Any:  # noqa: E741
    """Return x moved towards 0 by l, at most to 0."""
    return x - l if x > l else x + l if x < -l else mpf(0)


def sparse_plus(x: Any) -> Any:
    """Return 0 on the left, a parabola in the middle, and x on the right."""
    return x if x >= 1 else (x + 1) ** 2 / 4 if x > -1 else mpf(0)


def random_fourier(x: Any) -> Any:
    """Return √2 sin(√2 x + π/4)."""
    return mpmath.sqrt(2) * mpmath.sin(mpmath.sqrt(2) * x + mpmath.pi / 4)


def row(
    layer: fn.Layer,
    exact: Callable[[Any], Any],
    twin: Callable[..., Tensor] | None = None,
    kinds: dict[str, Tensor] = KINDS,
) -> Row:
    """Return the row of a function of one number."""
    return Row(repr(layer), layer, by_element(exact), kinds, twin, elementwise=True)


ROWS = [
    row(fn.ReLU(), lambda x: max(x, mpf(0)), nn.ReLU()),
    row(fn.ReLU6(), lambda x: bounded(x, mpf(0), mpf(6)), nn.ReLU6()),
    row(fn.LeakyReLU(), lambda x: x if x > 0 else mpf(0.01) * x, nn.LeakyReLU()),
    row(fn.ELU(), elu, nn.ELU()),
    row(fn.ELU(-0.5), lambda x: elu(x, -0.5), nn.ELU(-0.5)),
    row(fn.CELU(2.0), lambda x: elu(x, 2, 2), nn.CELU(2.0)),
    row(fn.SELU(), lambda x: SELU_SCALE * elu(x, SELU_ALPHA), nn.SELU()),
    row(fn.GELU(), gelu, nn.GELU()),
    row(fn.GELU("tanh"), gelu_by_tanh, nn.GELU("tanh")),
    row(fn.SiLU(), silu, nn.SiLU()),
    row(fn.Mish(), lambda x: x * mpmath.tanh(softplus(x)), nn.Mish()),
    row(fn.Dish(), dish),
    row(fn.Hardswish(), lambda x: x * bounded(x / 6 + mpf(0.5), 0, 1), nn.Hardswish()),
    row(fn.Hardswish(0.2), lambda x: x * bounded(mpf(0.2) * x + mpf(0.5), 0, 1)),
    row(fn.Sigmoid(), sigmoid, nn.Sigmoid()),
    row(fn.Tanh(), mpmath.tanh, nn.Tanh()),
    row(fn.Hardtanh(), lambda x: bounded(x, mpf(-1), mpf(1)), nn.Hardtanh()),
    row(fn.Hardsigmoid(), lambda x: bounded(x / 6 + mpf(0.5), mpf(0), mpf(1)), nn.Hardsigmoid()),
    row(fn.SparseSigmoid(), lambda x: bounded((x + 1) / 2, mpf(0), mpf(1))),
    row(fn.Softsign(), lambda x: x / (1 + abs(x)), nn.Softsign()),
    row(fn.LogSigmoid(), lambda x: -softplus(-x), nn.LogSigmoid()),
    row(fn.Softplus(), softplus, nn.Softplus()),
    row(fn.Softplus(0.5, 40.0), lambda x: 2 * softplus(x / 2), nn.Softplus(0.5, 40.0)),
    row(fn.Squareplus(), squareplus),
    row(fn.SparsePlus(), sparse_plus),
    row(fn.Softshrink(), softshrink, nn.Softshrink()),
    row(fn.Hardshrink(), lambda x: x if abs(x) > 0.5 else mpf(0), nn.Hardshrink()),
    row(fn.Tanhshrink(), lambda x: x - mpmath.tanh(x), nn.Tanhshrink()),
    row(fn.ClippedLinear(0.2, 0.5), lambda x: bounded(mpf(0.2) * x + mpf(0.5), mpf(0), mpf(1))),
    row(fn.ReLUK(3.0), lambda x: bounded(x, mpf(0), mpf(3)), lambda x: nn.functional.hardtanh(x, 0.0, 3.0)),
    row(fn.Threshold(0.2, 20.0), lambda x: x if x > mpf(0.2) else mpf(20), nn.Threshold(0.2, 20.0)),
    row(fn.Sin(), mpmath.sin, torch.sin, FINITE),
    row(fn.Cos(), mpmath.cos, torch.cos, FINITE),
    row(fn.RandomFourier(), random_fourier, kinds={**FINITE, "huge": both(1e4, 1e10, 1e20, 1e30, 1e38)}),  # √2 x overflows
    row(fn.Exp(), mpmath.exp, torch.exp),
    row(fn.Square(), lambda x: x * x, torch.square),
    row(fn.Monomial(3), lambda x: x**3, lambda x: torch.pow(x, 3)),
    row(fn.Abs(), abs, torch.abs),
    row(fn.Sign(), mpmath.sign, torch.sign),
    row(fn.Erf(), mpmath.erf, torch.erf),
    row(fn.Gaussian(), lambda x: mpmath.exp(-x * x), lambda x: torch.exp(-x * x)),
]
