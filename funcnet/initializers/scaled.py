"""Initializers of weights whose variance depends on the fans.

A weight of shape (out, in, *kernel) has fan_in = in · Π kernel and fan_out = out · Π kernel. A layer with other axes in its
weight, or with groups of channels, passes its own fans to ``for_fans``. A uniform distribution of variance v has the bounds ±√(3
v).
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import number, one_of
from funcnet.initializers.elementary import Fans, Initializer, Shape
from funcnet.initializers.gains import GAINS, calculate_gain, fans
from funcnet.random.keys import Key
from funcnet.value import frozen

_nonlinearity = one_of(*GAINS, "leaky_relu")
_fan = one_of("fan_in", "fan_out")
_positive = number(above=0.0)

# The standard deviation of a standard normal truncated at ±2; truncated draws are divided by it to keep their variance.
_CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def _draw(rng: Key | int, shape: Shape, std: float, distribution: str, dtype: torch.dtype | None) -> Tensor:
    """Draw from a distribution with mean 0 and this standard deviation."""
    if distribution == "uniform":
        bound = math.sqrt(3) * std
        return random.uniform(rng, shape, -bound, bound, dtype)
    if distribution == "truncated_normal":
        std = std / _CUT
        return random.truncated_normal(rng, shape, 0.0, std, -2 * std, 2 * std, dtype)
    return random.normal(rng, shape, 0.0, std, dtype)


class Scaled(Initializer):
    """Base of initializers whose standard deviation depends on the fans, which are passed or follow from the shape."""

    __slots__ = ()

    kind: ClassVar[str] = "normal"
    """The distribution: ``"normal"``, ``"uniform"`` or ``"truncated_normal"``."""

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return self.for_fans(rng, shape, fans(shape), dtype)

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        return _draw(rng, shape, self.deviation(*fans), self.kind, dtype)

    @abstractmethod
    def deviation(self, fan_in: int, fan_out: int) -> float:
        """Return the standard deviation for these fans."""


@frozen
class VarianceScaling(Scaled):
    """Draw with mean 0 and a variance inversely proportional to a fan.

        variance = scale / n        n = fan_in, fan_out, or their average

    Args:
        scale: The factor of the variance.
        mode: The divisor n: ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``.
        distribution: ``"normal"``, ``"uniform"`` or ``"truncated_normal"``, which is truncated at ±2 std before it is scaled to
            the variance.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        ``jax.nn.initializers.variance_scaling``.
    """

    scale: float = field(default=1.0, validator=_positive)
    mode: str = field(default="fan_in", validator=one_of("fan_in", "fan_out", "fan_avg"))
    distribution: str = field(default="truncated_normal", validator=one_of("normal", "uniform", "truncated_normal"))

    def for_fans(self, rng: Key | int, shape: Shape, fans: Fans, dtype: torch.dtype | None = None) -> Tensor:
        return _draw(rng, shape, self.deviation(*fans), self.distribution, dtype)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return math.sqrt(self.scale / max(n, 1))


@frozen
class XavierNormal(Scaled):
    """Draw from a normal distribution, scaled with both fans.

        x ~ N(0, std²)        std = gain √(2 / (fan_in + fan_out))

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        Glorot & Bengio 2010, eq. 12; ``torch.nn.init.xavier_normal_``.
    """

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain * math.sqrt(2 / (fan_in + fan_out))


@frozen
class XavierUniform(Scaled):
    """Draw from a uniform distribution, scaled with both fans.

        x ~ U(-b, b)        b = gain √(6 / (fan_in + fan_out)),  std = gain √(2 / (fan_in + fan_out))

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        Glorot & Bengio 2010, eq. 16; ``torch.nn.init.xavier_uniform_``.
    """

    kind = "uniform"

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain * math.sqrt(2 / (fan_in + fan_out))


@frozen
class KaimingNormal(Scaled):
    """Draw from a normal distribution, scaled with one fan and the gain of a nonlinearity.

        x ~ N(0, std²)        std = gain / √fan

    Args:
        a: The negative slope of leaky_relu; ignored for other nonlinearities.
        mode: The fan: ``"fan_in"`` or ``"fan_out"``.
        nonlinearity: The nonlinearity after the layer; ``calculate_gain`` returns its gain.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        He et al. 2015, eq. 10; ``torch.nn.init.kaiming_normal_``.
    """

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return calculate_gain(self.nonlinearity, self.a) / math.sqrt(fan_in if self.mode == "fan_in" else fan_out)


@frozen
class KaimingUniform(Scaled):
    """Draw from a uniform distribution, scaled with one fan and the gain of a nonlinearity.

        x ~ U(-b, b)        b = gain √(3 / fan),  std = gain / √fan

    Args:
        a: The negative slope of leaky_relu; ignored for other nonlinearities.
        mode: The fan: ``"fan_in"`` or ``"fan_out"``.
        nonlinearity: The nonlinearity after the layer; ``calculate_gain`` returns its gain.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        He et al. 2015, eq. 10; ``torch.nn.init.kaiming_uniform_``.
    """

    kind = "uniform"

    a: float = field(default=0.0, validator=number())
    mode: str = field(default="fan_in", validator=_fan)
    nonlinearity: str = field(default="leaky_relu", validator=_nonlinearity)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return calculate_gain(self.nonlinearity, self.a) / math.sqrt(fan_in if self.mode == "fan_in" else fan_out)


@frozen
class LecunNormal(Scaled):
    """Draw from a normal distribution, scaled with the fan of the inputs.

        x ~ N(0, std²)        std = gain / √fan_in

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain / math.sqrt(fan_in)


@frozen
class LecunUniform(Scaled):
    """Draw from a uniform distribution, scaled with the fan of the inputs.

        x ~ U(-b, b)        b = gain √(3 / fan_in),  std = gain / √fan_in

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        LeCun et al. 1998, "Efficient BackProp", section 4.6.
    """

    kind = "uniform"

    gain: float = field(default=1.0, validator=_positive)

    def deviation(self, fan_in: int, fan_out: int) -> float:
        return self.gain / math.sqrt(fan_in)


@frozen
class Orthogonal(Initializer):
    """Draw a matrix with orthonormal rows or columns, whichever are fewer, uniformly among all such matrices.

        x = gain Q        Q R the QR decomposition of a normal matrix, with the signs of R's diagonal moved to Q

    Args:
        gain: A factor.

    Shape:
        (out, in, *kernel), as a matrix (out, in · Π kernel)

    Raises:
        ValueError: If the shape has fewer than two axes.

    References:
        Saxe, McClelland & Ganguli 2014; ``torch.nn.init.orthogonal_``.

    >>> q = Orthogonal()(0, (2, 3))
    >>> torch.allclose(q @ q.T, torch.eye(2), atol=1e-6)
    True
    """

    gain: float = field(default=1.0, validator=_positive)

    def __call__(self, rng: Key | int, shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        columns, rows, dtype = fans(shape)[0], shape[0], torch.get_default_dtype() if dtype is None else dtype
        wide = torch.promote_types(dtype, torch.float32)  # QR needs float32 at least
        q, r = torch.linalg.qr(random.normal(rng, (max(rows, columns), min(rows, columns)), dtype=wide))
        q = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        matrix: Tensor = q if rows >= columns else q.t()
        return (matrix.reshape(shape).contiguous() * self.gain).to(dtype)
