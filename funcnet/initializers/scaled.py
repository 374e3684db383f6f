"""Initializers of weights, scaled by their fans.

VarianceScaling, XavierNormal, XavierUniform, KaimingNormal, KaimingUniform, LecunNormal, LecunUniform and Orthogonal draw a
weight of shape (out, in, *kernel), with fan_in = in · Π kernel and fan_out = out · Π kernel; a layer whose weight has other axes,
or whose channels are in groups, gives its own fans to ``for_fans``. All but ``Orthogonal`` draw with

    variance = gain² / fan_in (LeCun),                      gain² / fan_in or gain² / fan_out, by ``mode`` (Kaiming)
               2 gain² / (fan_in + fan_out) (Xavier),       scale / fan (VarianceScaling)

A uniform distribution of variance v has the bounds ±√(3 v).
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import is_number, is_whole_tuple, number, one_of, value_error
from funcnet.initializers.elementary import Fans, Initializer, Shape
from funcnet.random.keys import Key
from funcnet.value import frozen


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of ``shape`` (out, in, *kernel).

    Raises   ``ValueError`` for less than two axes.
    """
    if not is_whole_tuple(shape, 0) or len(shape) < 2:
        raise value_error("fans", "a weight must have at least 2 axes, (out, in, *kernel)", f"shape {shape!r}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


_UNIT = ["linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), "sigmoid"]
_GAINS = {**dict.fromkeys(_UNIT, 1.0), "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the gain that ``torch.nn.init.calculate_gain`` has for a ``nonlinearity``: of leaky_relu √(2 / (1 + a²)).

    a is ``param``, 0.01 where it is not given; the other nonlinearities do not read it.

    Raises   ``ValueError`` for an unknown nonlinearity, and a ``param`` that is not a finite number.
    """
    if param is not None and not is_number(param):
        raise value_error("calculate_gain", "param must be a finite number, or None", repr(param))
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2 / (1 + slope * slope))  # slope**2 would raise where it overflows
    if nonlinearity not in _GAINS:
        raise value_error(
            "calculate_gain", f"nonlinearity must be one of {', '.join([*_GAINS, 'leaky_relu'])}", repr(nonlinearity)
        )
    return _GAINS[nonlinearity]


_nonlinearity = one_of(*_GAINS, "leaky_relu")
_fan = one_of("fan_in", "fan_out")
_positive = number(above=0.0)

# The standard deviation of a standard normal cut at ±2, by which a truncated draw must be widened to keep its variance.
_CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def _spread(rng: Key | int, shape: Shape, std: float, distribution: str, dtype: torch.dtype | None) -> Tensor:
    """Draw with mean 0 and this standard deviation."""
    if distribution == "uniform":
        bound = math.sqrt(3) * std
        return random.uniform(rng, shape, -bound, bound, dtype)
    if distribution == "truncated_normal":
        std = std / _CUT
        return random.truncated_normal(rng, shape, 0.0, std, -2 * std, 2 * std, dtype)
    return random.normal(rng, shape, 0.0, std, dtype)


class Scaled(Initializer):
    """An initializer whose standard deviation depends on the fans: those of the shape, unless the layer gives its own."""

    __slots__ = ()

    kind: ClassVar[str] = "normal"
    """The distribution: ``"normal"``, ``"uniform"`` or ``"truncated_normal"``."""

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return self.for_fans(rng, shape, fans(shape), dtype)

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.deviation(*fans), self.kind, dtype)

    @abstractmethod
    def deviation(self, fan_in: int, fan_out: int) -> float:
        """Return the standard deviation."""


@frozen
class VarianceScaling(Scaled):
    """Mean 0 and variance scale / n, with n = fan_in, fan_out or, as ``mode="fan_avg"``, their average.

    A truncated normal is cut at ±2 std, and widened so that what is left has this variance.

    Raises   ``ValueError`` for a ``scale`` that is not above 0 and finite, an unknown ``mode`` or ``distribution``, and a shape
             of less than two axes.
    Source   ``jax.nn.initializers.variance_scaling``.
    """

    scale: float = field(default=1.0, validator=_positive)
    mode: str = field(default="fan_in", validator=one_of("fan_in", "fan_out", "fan_avg"))
    distribution: str = field(default="truncated_normal", validator=one_of("normal", "uniform", "truncated_normal"))

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.deviation(*fans), self.distribution, dtype)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return math.sqrt(self.scale / max(n, 1))


@frozen
class XavierNormal(Scaled):
    """Normal with std = gain √(2 / (fan_in + fan_out)).

    Raises   ``ValueError`` for a ``gain`` that is not above 0 and finite, and a shape of less than two axes.
    Source   Glorot & Bengio 2010, eq. 12; ``torch.nn.init.xavier_normal_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain * math.sqrt(2 / (fan_in + fan_out))


@frozen
class XavierUniform(Scaled):
    """Uniform in ±gain √(6 / (fan_in + fan_out)).

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   Glorot & Bengio 2010, eq. 16; ``torch.nn.init.xavier_uniform_``.
    """

    kind = "uniform"

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain * math.sqrt(2 / (fan_in + fan_out))


@frozen
class KaimingNormal(Scaled):
    """Normal with std = gain / √fan, with the gain of the ``nonlinearity``, and the fan that ``mode`` names.

    ``a`` is the slope of leaky_relu, as in ``torch.nn.init``; the other nonlinearities do not read it.

    Raises   ``ValueError`` for an ``a`` that is not finite, an unknown ``mode`` or ``nonlinearity``, and a shape of less than two
             axes.
    Source   He et al. 2015, eq. 10; ``torch.nn.init.kaiming_normal_``.
    """

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return calculate_gain(self.nonlinearity, self.a) / math.sqrt(fan_in if self.mode == "fan_in" else fan_out)


@frozen
class KaimingUniform(Scaled):
    """Uniform in ±gain √(3 / fan), with gain and fan as of ``KaimingNormal``.

    Raises   ``ValueError`` as ``KaimingNormal`` does.
    Source   He et al. 2015, eq. 10; ``torch.nn.init.kaiming_uniform_``.
    """

    kind = "uniform"

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return calculate_gain(self.nonlinearity, self.a) / math.sqrt(fan_in if self.mode == "fan_in" else fan_out)


@frozen
class LecunNormal(Scaled):
    """Normal with std = gain / √fan_in.

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain / math.sqrt(fan_in)


@frozen
class LecunUniform(Scaled):
    """Uniform in ±gain √(3 / fan_in).

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    kind = "uniform"

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain / math.sqrt(fan_in)


@frozen
class Orthogonal(Initializer):
    """A matrix (out, in · Π kernel) with orthonormal rows or columns, whichever are fewer, times ``gain``.

    It is the Q of a normal matrix's QR, with the signs of R's diagonal, and so drawn evenly from all such matrices.

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   Saxe, McClelland & Ganguli 2014; ``torch.nn.init.orthogonal_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        columns, rows, dtype = fans(shape)[0], shape[0], torch.get_default_dtype() if dtype is None else dtype
        wide = torch.promote_types(dtype, torch.float32)  # no narrower type has a QR
        q, r = torch.linalg.qr(random.normal(rng, (max(rows, columns), min(rows, columns)), dtype=wide))
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        matrix: Tensor = q if rows >= columns else q.t()
        return (matrix.reshape(shape).contiguous() * self.gain).to(dtype)
