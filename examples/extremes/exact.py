"""References with more than 100 digits: functions of arrays of mpmath numbers, and gradients by central differences.

A reference is a function of numpy arrays of ``mpf``, one for each floating tensor of x, and returns y as an array of ``mpf``.
Other tensors, such as labels, are arrays of integers. Its gradient needs no formula: with numbers of 250 digits and steps of
10⁻⁸⁰ times x, central differences are exact to more than 100 digits.

Infinities become ±10⁶⁰, beyond all float32 numbers: the rounded value of a function there is its limit. NaN is only allowed in
ignored elements of x, and becomes 0.
"""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from torch import Tensor

Array = Any  # a numpy array of mpf
Exact = Callable[..., Array]

mpmath.mp.dps = 250
INFINITE = mpmath.mpf(10) ** 60
STEP, LEAST = mpmath.mpf(10) ** -80, mpmath.mpf(10) ** -50


def by_element(f: Callable[[Any], Any]) -> Exact:
    """Turn f, a function of one number, into an elementwise function of arrays."""
    return np.vectorize(f, otypes=[object])


exp, log, log1p, sqrt, erfc = map(by_element, (mpmath.exp, mpmath.log, mpmath.log1p, mpmath.sqrt, mpmath.erfc))


def array_of(x: Tensor) -> Array:
    """Return a tensor as an array: of ``mpf`` if it is floating, else of integers."""
    if not x.is_floating_point():
        return x.numpy()
    numbers = np.array([_finite(number) for number in x.double().flatten().tolist()], dtype=object)
    return numbers.reshape(tuple(x.shape))


def _finite(number: float) -> Any:
    if math.isnan(number):
        return mpmath.mpf(0)
    return mpmath.mpf(number) if not math.isinf(number) else INFINITE * (1 if number > 0 else -1)


def value_of(exact: Exact, x: tuple[Tensor, ...]) -> Array:
    """Return the exact y."""
    return np.asarray(exact(*map(array_of, x)), dtype=object)


def gradients_of(exact: Exact, x: tuple[Tensor, ...], gy: Tensor, *, elementwise: bool) -> list[Array | None]:
    """Return the exact gradient of each floating tensor of x, ``None`` for others."""
    arrays, weights = [*map(array_of, x)], array_of(gy)

    def total(i: int, moved: Array) -> Array:
        terms = np.asarray(exact(*arrays[:i], moved, *arrays[i + 1 :]), dtype=object) * weights
        return terms if elementwise else np.sum(terms)

    slopes = _slopes if elementwise else _partial_slopes
    return [
        slopes(lambda moved, i=i: total(i, moved), arrays[i]) if part.is_floating_point() else None for i, part in enumerate(x)
    ]


def _step(number: Any) -> Any:
    return STEP * max(abs(number), LEAST)


def _slopes(f: Exact, x: Array) -> Array:
    """Return the derivative of an elementwise function."""
    h = by_element(_step)(x) if x.size else x
    return (f(x + h) - f(x - h)) / (2 * h)


def _partial_slopes(f: Callable[[Array], Any], x: Array) -> Array:
    """Return the partial derivatives of a scalar function with respect to each element of x."""
    slopes = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        h = _step(x[place])
        up, down = x.copy(), x.copy()
        up[place] += h
        down[place] -= h
        slopes[place] = (f(up) - f(down)) / (2 * h)
    return slopes
