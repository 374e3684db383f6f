"""Initializers: frozen values that draw a parameter's first value, ``initializer(rng, shape, dtype=None) -> tensor``.

A weight has the shape (out, in, *kernel); fan_in = in · Π kernel and fan_out = out · Π kernel. Constant, Zeros, Ones, Uniform,
Normal and TruncatedNormal take any shape (...). VarianceScaling, XavierNormal, XavierUniform, KaimingNormal, KaimingUniform,
LecunNormal, LecunUniform and Orthogonal draw weights, and refuse a shape of less than two axes; but for the last, they draw with

    variance = gain² / fan_in (Kaiming, LeCun),   2 gain² / (fan_in + fan_out) (Xavier),   scale / fan (VarianceScaling)

and a uniform draw of variance v comes from ±√(3 v). A layer takes an initializer or its name, a key of ``NAMES``.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import is_number, number, one_of, value_error
from funcnet.random import Key
from funcnet.value import Value, frozen

Shape = tuple[int, ...]


class Initializer(Value, ABC):
    """A frozen value that draws a tensor from a key and a shape."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        """Draw a tensor of this shape; ``dtype`` is torch's default one where it is not given."""


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of ``shape`` (out, in, *kernel).

    Raises   ``ValueError`` for less than two axes.
    """
    if len(shape) < 2:
        raise value_error("fans", "a weight must have at least 2 axes, (out, in, *kernel)", f"shape {shape}")
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
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise value_error(
            "calculate_gain", f"nonlinearity must be one of {', '.join([*_GAINS, 'leaky_relu'])}", repr(nonlinearity)
        )
    return _GAINS[nonlinearity]


_nonlinearity = one_of(*_GAINS, "leaky_relu")
_fan = one_of("fan_in", "fan_out")
_positive = number(above=0.0)


def _high(value: Any, attribute: Any, got: Any) -> None:
    number(value.low)(value, attribute, got)


@frozen
class Constant(Initializer):
    """Every element x = ``value``.

    Raises   ``ValueError`` for a value that is not a finite number.
    Source   elementary.
    """

    value: float = field(validator=number())

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(shape, self.value, dtype=dtype or torch.get_default_dtype(), device=random.as_key(rng).device)


def Zeros() -> Constant:  # noqa: N802 (it makes a value)
    """Every element x = 0: the ``Constant`` of that value."""
    return Constant(0.0)


def Ones() -> Constant:  # noqa: N802 (it makes a value)
    """Every element x = 1: the ``Constant`` of that value."""
    return Constant(1.0)


@frozen
class Uniform(Initializer):
    """Evenly from low ≤ x < high.

    Raises   ``ValueError`` for bounds that are not finite or out of order.
    Source   elementary; ``torch.nn.init.uniform_``.
    """

    low: float = field(default=0.0, validator=number())
    high: float = field(default=1.0, validator=_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.uniform(rng, shape, self.low, self.high, dtype)


@frozen
class Normal(Initializer):
    """From the normal distribution of this ``mean`` and this standard deviation ``std``.

    Raises   ``ValueError`` for numbers that are not finite, and an ``std`` below 0.
    Source   elementary; ``torch.nn.init.normal_``.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0.0))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.normal(rng, shape, self.mean, self.std, dtype)


@frozen
class TruncatedNormal(Initializer):
    """From the normal distribution of ``mean`` and ``std`` on condition that low ≤ x ≤ high; the bounds are values, as in torch.

    Raises   ``ValueError`` for numbers that are not finite, an ``std`` that is not above 0, and bounds out of order.
    Source   ``torch.nn.init.trunc_normal_``'s distribution.
    """

    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=_positive)
    low: float = field(default=-2.0, validator=number())
    high: float = field(default=2.0, validator=_high)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return random.truncated_normal(rng, shape, self.mean, self.std, self.low, self.high, dtype)


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


@frozen
class VarianceScaling(Initializer):
    """Mean 0 and variance scale / n, with n = fan_in, fan_out or, as ``mode="fan_avg"``, their average.

    A truncated normal is cut at ±2 std, and widened so that what is left has this variance.

    Raises   ``ValueError`` for a ``scale`` that is not above 0 and finite, an unknown ``mode`` or ``distribution``, and a shape
             of less than two axes.
    Source   ``jax.nn.initializers.variance_scaling``.
    """

    scale: float = field(default=1.0, validator=_positive)
    mode: str = field(default="fan_in", validator=one_of("fan_in", "fan_out", "fan_avg"))
    distribution: str = field(default="truncated_normal", validator=one_of("normal", "uniform", "truncated_normal"))

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return _spread(rng, shape, math.sqrt(self.scale / max(n, 1)), self.distribution, dtype)


@frozen
class XavierNormal(Initializer):
    """Normal with std = gain √(2 / (fan_in + fan_out)).

    Raises   ``ValueError`` for a ``gain`` that is not above 0 and finite, and a shape of less than two axes.
    Source   Glorot & Bengio 2010, eq. 12; ``torch.nn.init.xavier_normal_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.gain * math.sqrt(2 / sum(fans(shape))), "normal", dtype)


@frozen
class XavierUniform(Initializer):
    """Uniform in ±gain √(6 / (fan_in + fan_out)).

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   Glorot & Bengio 2010, eq. 16; ``torch.nn.init.xavier_uniform_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.gain * math.sqrt(2 / sum(fans(shape))), "uniform", dtype)


def _kaiming(shape: Shape, a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = fans(shape)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


@frozen
class KaimingNormal(Initializer):
    """Normal with std = gain / √fan, with the gain of the ``nonlinearity``, and the fan that ``mode`` names.

    ``a`` is the slope of leaky_relu, as in ``torch.nn.init``; the other nonlinearities do not read it.

    Raises   ``ValueError`` for an ``a`` that is not finite, an unknown ``mode`` or ``nonlinearity``, and a shape of less than two
             axes.
    Source   He et al. 2015, eq. 10; ``torch.nn.init.kaiming_normal_``.
    """

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, _kaiming(shape, self.a, self.mode, self.nonlinearity), "normal", dtype)


@frozen
class KaimingUniform(Initializer):
    """Uniform in ±gain √(3 / fan), with gain and fan as of ``KaimingNormal``.

    Raises   ``ValueError`` as ``KaimingNormal`` does.
    Source   He et al. 2015, eq. 10; ``torch.nn.init.kaiming_uniform_``.
    """

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, _kaiming(shape, self.a, self.mode, self.nonlinearity), "uniform", dtype)


@frozen
class LecunNormal(Initializer):
    """Normal with std = gain / √fan_in.

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.gain / math.sqrt(fans(shape)[0]), "normal", dtype)


@frozen
class LecunUniform(Initializer):
    """Uniform in ±gain √(3 / fan_in).

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return _spread(rng, shape, self.gain / math.sqrt(fans(shape)[0]), "uniform", dtype)


@frozen
class Orthogonal(Initializer):
    """A matrix (out, in · Π kernel) with orthonormal rows or columns, whichever are fewer, times ``gain``.

    It is the Q of a normal matrix's QR, with the signs of R's diagonal, and so drawn evenly from all such matrices.

    Raises   ``ValueError`` as ``XavierNormal`` does.
    Source   Saxe, McClelland & Ganguli 2014; ``torch.nn.init.orthogonal_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        rows, columns, dtype = shape[0], fans(shape)[0], dtype or torch.get_default_dtype()
        wide = torch.promote_types(dtype, torch.float32)  # no narrower type has a QR
        q, r = torch.linalg.qr(random.normal(rng, (max(rows, columns), min(rows, columns)), dtype=wide))
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        matrix: Tensor = q if rows >= columns else q.t()
        return (matrix.reshape(shape).contiguous() * self.gain).to(dtype)


NAMES: dict[str, Initializer] = {
    "zeros": Zeros(),
    "ones": Ones(),
    "uniform": Uniform(),
    "normal": Normal(),
    "truncated_normal": TruncatedNormal(),
    "xavier_normal": XavierNormal(),
    "xavier_uniform": XavierUniform(),
    "glorot_normal": XavierNormal(),
    "glorot_uniform": XavierUniform(),
    "kaiming_normal": KaimingNormal(),
    "kaiming_uniform": KaimingUniform(),
    "he_normal": KaimingNormal(),
    "he_uniform": KaimingUniform(),
    "lecun_normal": LecunNormal(),
    "lecun_uniform": LecunUniform(),
    "orthogonal": Orthogonal(),
    "torch": KaimingUniform(a=math.sqrt(5)),
}
"""The initializers that a layer takes by name; ``"torch"`` is what ``torch.nn.Linear`` and its convolutions draw."""


def known(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field: what it ``got`` must be an initializer or the name of one.

    It has the form of attrs' validators, called with the ``value`` that the field, ``attribute``, is of.

    Raises   ``ValueError`` for anything else.
    """
    if not isinstance(got, Initializer) and not (isinstance(got, str) and got in NAMES):
        raise value_error(
            type(value).__name__, f"{attribute.name} must be an initializer or one of {', '.join(NAMES)}", repr(got)
        )


def initialize(rng: Key | int, shape: Shape, initializer: str | Initializer) -> Tensor:
    """Draw a tensor of this ``shape`` by an ``initializer`` or the name of one, from the key ``rng``."""
    return (NAMES[initializer] if isinstance(initializer, str) else initializer)(rng, shape)


def weight_and_bias(rng: Key | int, shapes: dict[str, Shape], initializer: str | Initializer) -> dict[str, Tensor]:
    """Draw a weight by ``initializer``, from the key ``rng``, and a bias where ``shapes`` has one.

    The bias is zeros, or with ``"torch"`` uniform in ±1/√fan_in as in ``torch.nn``.
    """
    rng = random.as_key(rng)
    draw = NAMES[initializer] if isinstance(initializer, str) else initializer
    bound = 1 / math.sqrt(fans(shapes["weight"])[0]) if initializer == "torch" else 0.0
    first = {"weight": draw, "bias": Uniform(-bound, bound) if bound else Zeros()}
    return {name: first[name](random.fold_in(rng, i), shape) for i, (name, shape) in enumerate(shapes.items())}
