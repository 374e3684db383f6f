"""Draws of floating numbers: uniform, normal, truncated normal, exponential, Gumbel.

``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers, () for a single draw, and ``dtype`` a floating type
(torch's default).
"""

import math
import sys

import torch
from torch import Tensor

from funcnet.errors import is_number, value_error
from funcnet.random.keys import Key, bits, half_bits, shift_right

# The binary digits of each floating type's significand.
DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def _floating(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype, torch's default one for ``None``, which must be a floating type of known precision."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in DIGITS:
        raise value_error("random", "the dtype must be a floating one of " + ", ".join(map(str, DIGITS)), dtype)
    return dtype


def _fractions(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype, digits: int) -> Tensor:
    """Draw multiples of 2^-digits, 0 ≤ u < 1."""
    if dtype is torch.float64:
        return shift_right(bits(rng, shape), 64 - digits).to(dtype) * 2.0**-digits
    words = half_bits(rng, shape).bitwise_right_shift(32 - digits) & ((1 << digits) - 1)
    return words.to(dtype) * 2.0**-digits


def _in_order(who: str, low: float, high: float) -> tuple[float, float]:
    """Return the bounds as floats: a tensor cannot be multiplied by a fraction."""
    if not is_number(low) or not is_number(high) or low > high:
        raise value_error(who, "low and high must be finite numbers, low at most high", f"low={low!r}, high={high!r}")
    return float(low), float(high)


def _spread(who: str, mean: float, std: float, least: float) -> tuple[float, float]:
    if not is_number(mean) or not is_number(std) or std < least:
        rule = f"mean and std must be finite numbers, std {'above' if least else 'at least'} 0"
        raise value_error(who, rule, f"mean={mean!r}, std={std!r}")
    return float(mean), float(std)


def uniform(
    rng: Key | int, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from ``low`` ≤ x < ``high`` evenly, with every binary digit of the dtype random.

    Raises   ``ValueError`` for bounds that are not finite, or out of order.
    """
    dtype = _floating(dtype)
    low, high = _in_order("uniform", low, high)
    u = _fractions(rng, shape, dtype, DIGITS[dtype])
    if (low, high) == (0, 1):
        return u
    wide = high - low > torch.finfo(dtype).max
    x = u * high + (1 - u) * low if wide else u * (high - low) + low
    return torch.where(x < high, x, low)  # the sum may have been rounded up to high


def _open(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw from 0 < u < 1, symmetric about ½: (i + ½) 2^-digits, with one digit fewer so that the half is exact."""
    digits = DIGITS[dtype] - 1
    return _fractions(rng, shape, dtype, digits) + 0.5 * 2.0**-digits


def normal(
    rng: Key | int, shape: tuple[int, ...] = (), mean: float = 0.0, std: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from the normal distribution: ``mean`` + ``std`` √2 erf⁻¹(2u - 1), narrow types in float32 and rounded.

    Raises   ``ValueError`` for a mean or std that is not finite, and an std below 0.
    """
    dtype = _floating(dtype)
    mean, std = _spread("normal", mean, std, 0.0)
    u = _open(rng, shape, torch.promote_types(dtype, torch.float32))
    return (torch.erfinv(2 * u - 1) * (std * math.sqrt(2)) + mean).to(dtype)


def truncated_normal(
    rng: Key | int,
    shape: tuple[int, ...] = (),
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw from the normal distribution on condition that ``low`` ≤ x ≤ ``high``.

    The distribution function of ``mean`` and ``std`` is inverted in float64; in one tail, probabilities are counted from its end.

    Raises   ``ValueError`` for numbers that are not finite, an std that is not above 0, bounds out of order, and bounds that are
             both more than 37 ``std`` off on one side, where float64 has no probabilities.
    """
    dtype = _floating(dtype)
    low, high = _in_order("truncated_normal", low, high)
    mean, std = _spread("truncated_normal", mean, std, math.ulp(0.0))
    a, b = ((bound - mean) / std for bound in (low, high))
    u = _open(rng, shape, torch.float64)
    if max(a, -b) > _TAIL:
        z = -_in_tail(u, a, b) if a > 0 else _in_tail(u, -b, -a)
    else:
        below, above = (math.erf(bound / math.sqrt(2)) for bound in (a, b))
        z = torch.erfinv(below + (above - below) * u) * math.sqrt(2)
    return (z * std + mean).clamp(low, high).to(dtype)


_TAIL = 4.0  # beyond it, erf is so near to 1 that digits of the rest are lost


def _in_tail(u: Tensor, a: float, b: float) -> Tensor:
    """Draw from a standard normal on condition that -b ≤ z ≤ -a, 0 < a < b."""
    near, far = (math.erfc(bound / math.sqrt(2)) / 2 for bound in (a, b))
    if near < sys.float_info.min:
        raise value_error("truncated_normal", "the bounds must come within 37 std of the mean", f"bounds {a:g} std off")
    z: Tensor = torch.special.ndtri(far + (near - far) * u)
    return z


def gumbel(rng: Key | int, shape: tuple[int, ...] = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw from the distribution of a largest, F(x) = exp(-e⁻ˣ), by its inverse, narrow types in float32 and rounded."""
    dtype = _floating(dtype)
    u = _open(rng, shape, torch.promote_types(dtype, torch.float32))
    return (-torch.log(-torch.log(u))).to(dtype)


def exponential(rng: Key | int, shape: tuple[int, ...] = (), rate: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
    """Draw from the exponential distribution, of mean 1 / ``rate``: -log(u) / rate, narrow types in float32 and rounded.

    Raises   ``ValueError`` for a rate that is not a finite number above 0.
    """
    dtype = _floating(dtype)
    if not is_number(rate) or rate <= 0:
        raise value_error("exponential", "rate must be a finite number above 0", repr(rate))
    u = _open(rng, shape, torch.promote_types(dtype, torch.float32))
    return (-torch.log(u) / float(rate)).to(dtype)
