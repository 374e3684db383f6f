"""Draws of floating numbers: uniform, normal, truncated normal, exponential, Gumbel.

``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers, () for a single draw.
"""

import math
import sys

import torch
from torch import Tensor

from funcnet.errors import is_number, value_error
from funcnet.random.keys import Key, bits, half_bits, shift_right

# The binary digits of the significand of each floating dtype.
DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def _require_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype, by default torch's default dtype, after checking that it is in ``DIGITS``."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in DIGITS:
        raise value_error("random", "the dtype must be one of " + ", ".join(map(str, DIGITS)), dtype)
    return dtype


def _fractions(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype, digits: int) -> Tensor:
    """Draw multiples of 2^-digits, 0 ≤ u < 1."""
    if dtype is torch.float64:
        return shift_right(bits(rng, shape), 64 - digits).to(dtype) * 2.0**-digits
    words = half_bits(rng, shape).bitwise_right_shift(32 - digits) & ((1 << digits) - 1)
    return words.to(dtype) * 2.0**-digits


def _require_bounds(who: str, low: float, high: float) -> tuple[float, float]:
    """Return the bounds as floats, after checking them: a tensor cannot be multiplied by a ``Fraction``."""
    if not is_number(low) or not is_number(high) or low > high:
        raise value_error(who, "low and high must be finite numbers, low at most high", f"low={low!r}, high={high!r}")
    return float(low), float(high)


def _require_mean_and_std(who: str, mean: float, std: float, least: float) -> tuple[float, float]:
    if not is_number(mean) or not is_number(std) or std < least:
        rule = f"mean and std must be finite numbers, std {'above' if least else 'at least'} 0"
        raise value_error(who, rule, f"mean={mean!r}, std={std!r}")
    return float(mean), float(std)


def uniform(
    rng: Key | int, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from a uniform distribution, with every binary digit of the dtype random.

        x ~ U[low, high)

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        low: The lower bound, included.
        high: The upper bound, not included.
        dtype: A floating dtype; by default torch's default dtype.

    Returns:
        A tensor of this shape.

    Raises:
        ValueError: If a bound is not finite, or ``low`` is above ``high``.

    >>> bool((uniform(0, (1000,)) < 0.5).float().mean() > 0.4)
    True
    """
    dtype = _require_dtype(dtype)
    low, high = _require_bounds("uniform", low, high)
    u = _fractions(rng, shape, dtype, DIGITS[dtype])
    if (low, high) == (0, 1):
        return u
    wide = high - low > torch.finfo(dtype).max
    x = u * high + (1 - u) * low if wide else u * (high - low) + low
    return torch.where(x < high, x, low)  # rounding may give high


def _open_fractions(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw from 0 < u < 1, symmetric about ½: (i + ½) 2^-digits, with one digit less so that the ½ is exact."""
    digits = DIGITS[dtype] - 1
    return _fractions(rng, shape, dtype, digits) + 0.5 * 2.0**-digits


def normal(
    rng: Key | int, shape: tuple[int, ...] = (), mean: float = 0.0, std: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from a normal distribution; half precision is computed in float32 and rounded.

        x = mean + std √2 erf⁻¹(2u - 1)        u uniform in (0, 1)

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        mean: The mean.
        std: The standard deviation, at least 0.
        dtype: A floating dtype; by default torch's default dtype.

    Returns:
        A tensor of this shape.

    Raises:
        ValueError: If ``mean`` or ``std`` is not finite, or ``std`` is below 0.

    >>> normal(0, (2, 3)).shape
    torch.Size([2, 3])
    """
    dtype = _require_dtype(dtype)
    mean, std = _require_mean_and_std("normal", mean, std, 0.0)
    u = _open_fractions(rng, shape, torch.promote_types(dtype, torch.float32))
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
    """Draw from a normal distribution truncated to the interval from ``low`` to ``high``.

        x ~ N(mean, std²) given low ≤ x ≤ high

    The draw inverts the distribution function in float64. If both bounds are in one tail, it uses the probabilities of that tail.

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        mean: The mean before truncation.
        std: The standard deviation before truncation, above 0.
        low: The lower bound, a value and not a number of standard deviations.
        high: The upper bound, also a value.
        dtype: A floating dtype; by default torch's default dtype.

    Returns:
        A tensor of this shape.

    Raises:
        ValueError: If a number is not finite, ``low`` is above ``high``, or both bounds are more than 37 ``std`` from the mean on
            one side, where probabilities underflow in float64.

    >>> bool(truncated_normal(0, (1000,), low=0.0).min() >= 0)
    True
    """
    dtype = _require_dtype(dtype)
    low, high = _require_bounds("truncated_normal", low, high)
    mean, std = _require_mean_and_std("truncated_normal", mean, std, math.ulp(0.0))
    a, b = ((bound - mean) / std for bound in (low, high))
    u = _open_fractions(rng, shape, torch.float64)
    if max(a, -b) > _TAIL:
        z = -_draw_tail(u, a, b) if a > 0 else _draw_tail(u, -b, -a)
    else:
        below, above = (math.erf(bound / math.sqrt(2)) for bound in (a, b))
        z = torch.erfinv(below + (above - below) * u) * math.sqrt(2)
    return (z * std + mean).clamp(low, high).to(dtype)


_TAIL = 4.0  # beyond it erf is so close to 1 that 1 - erf loses digits


def _draw_tail(u: Tensor, a: float, b: float) -> Tensor:
    """Draw from a standard normal given -b ≤ z ≤ -a, 0 < a < b."""
    near, far = (math.erfc(bound / math.sqrt(2)) / 2 for bound in (a, b))
    if near < sys.float_info.min:
        raise value_error("truncated_normal", "a bound must be within 37 std of the mean", f"bounds {a:g} std off")
    z: Tensor = torch.special.ndtri(far + (near - far) * u)
    return z


def gumbel(rng: Key | int, shape: tuple[int, ...] = (), dtype: torch.dtype | None = None) -> Tensor:
    """Draw from the standard Gumbel distribution; half precision is computed in float32 and rounded.

        x = -log(-log u)        u uniform in (0, 1)

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        dtype: A floating dtype; by default torch's default dtype.

    Returns:
        A tensor of this shape.

    >>> gumbel(0, (2, 3)).shape
    torch.Size([2, 3])
    """
    dtype = _require_dtype(dtype)
    u = _open_fractions(rng, shape, torch.promote_types(dtype, torch.float32))
    return (-torch.log(-torch.log(u))).to(dtype)


def exponential(rng: Key | int, shape: tuple[int, ...] = (), rate: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
    """Draw from an exponential distribution, whose mean is 1 / ``rate``; half precision is computed in float32 and rounded.

        x = -log(u) / rate        u uniform in (0, 1)

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        rate: The inverse of the mean.
        dtype: A floating dtype; by default torch's default dtype.

    Returns:
        A tensor of this shape.

    Raises:
        ValueError: If ``rate`` is not a finite number above 0.

    >>> exponential(0, (2, 3)).shape
    torch.Size([2, 3])
    """
    dtype = _require_dtype(dtype)
    if not is_number(rate) or rate <= 0:
        raise value_error("exponential", "rate must be a finite number above 0", repr(rate))
    u = _open_fractions(rng, shape, torch.promote_types(dtype, torch.float32))
    return (-torch.log(u) / float(rate)).to(dtype)
