"""Randomness as data: a key is a 0-d int64 tensor, and every draw is a pure function of a key.

The generator is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 17): draw
number i of a key is mix(key + i γ), i = 1, 2, ..., with γ = 0x9E3779B97F4A7C15 and, on 64-bit words,

    mix(z):  z ← (z ⊕ z>>30) · 0xBF58476D1CE4E5B9;  z ← (z ⊕ z>>27) · 0x94D049BB133111EB;  z ⊕ z>>31

All of it is tensor arithmetic, so a key gives the same bits on every device, in eager and compiled code and under ``vmap``;
normal draws are the same to the rounding of erf⁻¹, and Gumbel's to that of the logarithm.
The same key gives the same draw every time: ``split`` it, or ``fold_in`` a number, to get others.

Everywhere ``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers, () for a single draw, and ``dtype`` a floating
type, torch's default one where it is not given. Anything else raises ``ValueError``.
"""

import math
import sys
from numbers import Integral

import torch
from torch import Tensor

from funcnet.errors import describe, is_number, is_whole, value_error

Key = Tensor
"""A 0-d int64 tensor."""


def _signed(word: int) -> int:
    """Return the int64 that equals a whole number modulo 2⁶⁴; one in range as it is, as are a compiler's symbolic numbers."""
    if -(1 << 63) <= word < 1 << 63:
        return word
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


_HIGH, _LOW = 0x9E3779B9, 0x7F4A7C15
_GAMMA = _signed(_HIGH << 32 | _LOW)
_M1, _M2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
# The golden-ratio and π words keep the keys made by split and by fold_in, and a key's own draws, apart from each other.
_SPLIT, _FOLD = _signed(0x243F6A8885A308D3), _signed(0x13198A2E03707344)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros (torch's own shift copies the sign)."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Mix; in place on its own new tensors, since a large draw costs more in fresh memory than in arithmetic.

    On the meta device there are no bits to mix: a summary of 96 transformer blocks takes 8 s without this arithmetic, 25 with it.
    """
    if z.is_meta:
        return z
    z = _shift(z, 30).bitwise_xor_(z).mul_(_M1)
    z = _shift(z, 27).bitwise_xor_(z).mul_(_M2)
    return _shift(z, 31).bitwise_xor_(z)


def _multiples(i: Tensor) -> Tensor:
    """Return i γ.

    Inductor makes index arithmetic of a product with a position, and there an overflow lets the C++ compiler drop the loop's
    end. So compiled code multiplies the halves of γ, after an operation that no index has, and joins them by |.
    """
    if not torch.compiler.is_compiling():
        return i * _GAMMA
    i = i ^ 0
    low = i * _LOW
    return (i * _HIGH + (low >> 32) << 32) | (low & 0xFFFFFFFF)


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def key(seed: int) -> Key:
    """Make a key from a ``seed``, any whole number; seeds that differ by a multiple of 2⁶⁴ give the same key.

    Raises   ``ValueError`` for a seed that is no whole number.
    """
    if not is_whole(seed):
        raise value_error("key", "the seed must be a whole number", seed)
    return torch.tensor(_signed(int(seed)), dtype=torch.int64)


def as_key(rng: Key | int) -> Key:
    """Return a key as it is, and make one from an int seed.

    Raises   ``ValueError`` for an ``rng`` that is neither.
    """
    if isinstance(rng, Tensor) and rng.dtype is torch.int64 and rng.dim() == 0:
        return rng
    if is_whole(rng):
        return key(int(rng))
    raise value_error("rng", "it must be a key, fn.key(seed), or an int seed", describe(rng))


def split(rng: Key | int, n: int = 2) -> Tensor:
    """Make n independent keys of one, ``rng``, as an int64 tensor (n,) that unpacks into them.

    Raises   ``ValueError`` for an n that is no whole number of at least 0.
    """
    rng = as_key(rng)
    if not is_whole(n) or n < 0:
        raise value_error("split", "n must be a whole number of at least 0", n)
    return bits(rng ^ _SPLIT, (n,))


def fold_in(rng: Key | int, data: int | str | Tensor) -> Key:
    """Make the key that belongs to a number (a step, a layer's position) or to a word: ``fold_in(key, "dropout")``.

    An integer tensor ``data`` (...) makes a key for each of its numbers. A word counts as its 64-bit FNV-1a hash.

    Raises   ``ValueError`` for ``data`` that is no whole number, no word and no integer tensor.
    """
    rng = as_key(rng)
    if isinstance(data, str):
        data = _hash(data)
    if not is_whole(data) and not (isinstance(data, Tensor) and data.dtype in _INTEGERS):
        raise value_error("fold_in", "data must be a whole number, a word or an integer tensor", data)
    word = data.to(torch.int64) if isinstance(data, Tensor) else key(data)
    return _mix(_multiples(word.to(rng.device)) + _mix(rng + _FOLD))


def _hash(word: str) -> int:
    """Return the 64-bit FNV-1a hash of the word in UTF-8: Python's own differs in each process."""
    found = 0xCBF29CE484222325
    for byte in word.encode():
        found = ((found ^ byte) * 0x100000001B3) % (1 << 64)
    return found


def bits(rng: Key | int, shape: tuple[int, ...] = ()) -> Tensor:
    """Draw 64 random bits for each element, as int64.

    Raises   ``ValueError`` for a ``shape`` that is no tuple of whole numbers of at least 0.
    """
    rng = as_key(rng)
    return _mix(_multiples(torch.arange(1, _count(shape) + 1, device=rng.device)) + rng).reshape(shape)


# Compiled code may have symbolic sizes.
_SIZES = (Integral, torch.SymInt)


def _count(shape: tuple[int, ...]) -> int:
    """Return how many elements a shape has."""
    if not isinstance(shape, tuple) or [n for n in shape if not isinstance(n, _SIZES) or isinstance(n, bool) or n < 0]:
        raise value_error("random", "the shape must be a tuple of whole numbers of at least 0", repr(shape))
    return math.prod(shape)


def _half_bits(rng: Key | int, shape: tuple[int, ...]) -> Tensor:
    """Draw 32 random bits for each element, as int32: each 64-bit draw serves two."""
    count = _count(shape)
    return bits(rng, ((count + 1) // 2,)).view(torch.int32)[:count].reshape(shape)


# The binary digits of each floating type's significand.
_DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def _floating(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype, torch's default one for ``None``, which must be a floating type of known precision."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in _DIGITS:
        raise value_error("random", "the dtype must be a floating one of " + ", ".join(map(str, _DIGITS)), dtype)
    return dtype


def _fractions(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype, digits: int) -> Tensor:
    """Draw multiples of 2^-digits, 0 ≤ u < 1."""
    if dtype is torch.float64:
        return _shift(bits(rng, shape), 64 - digits).to(dtype) * 2.0**-digits
    words = (_half_bits(rng, shape) >> (32 - digits)) & ((1 << digits) - 1)
    return words.to(dtype) * 2.0**-digits


def _in_order(who: str, low: float, high: float) -> None:
    if not is_number(low) or not is_number(high) or low > high:
        raise value_error(who, "low and high must be finite numbers, low at most high", f"low={low!r}, high={high!r}")


def _spread(who: str, mean: float, std: float, least: float) -> None:
    if not is_number(mean) or not is_number(std) or std < least:
        rule = f"mean and std must be finite numbers, std {'above' if least else 'at least'} 0"
        raise value_error(who, rule, f"mean={mean!r}, std={std!r}")


def uniform(
    rng: Key | int, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from ``low`` ≤ x < ``high`` evenly, with every binary digit of the dtype random.

    Raises   ``ValueError`` for bounds that are not finite, or out of order.
    """
    dtype = _floating(dtype)
    _in_order("uniform", low, high)
    u = _fractions(rng, shape, dtype, _DIGITS[dtype])
    if (low, high) == (0, 1):
        return u
    wide = high - low > torch.finfo(dtype).max
    x = u * high + (1 - u) * low if wide else u * (high - low) + low
    return torch.where(x < high, x, low)  # the sum may have been rounded up to high


def _open(rng: Key | int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw from 0 < u < 1, symmetric about ½: (i + ½) 2^-digits, with one digit fewer so that the half is exact."""
    digits = _DIGITS[dtype] - 1
    return _fractions(rng, shape, dtype, digits) + 0.5 * 2.0**-digits


def normal(
    rng: Key | int, shape: tuple[int, ...] = (), mean: float = 0.0, std: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw from the normal distribution: ``mean`` + ``std`` √2 erf⁻¹(2u - 1), narrow types in float32 and rounded.

    Raises   ``ValueError`` for a mean or std that is not finite, and an std below 0.
    """
    dtype = _floating(dtype)
    _spread("normal", mean, std, 0.0)
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
    _in_order("truncated_normal", low, high)
    _spread("truncated_normal", mean, std, math.ulp(0.0))
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


def bernoulli(rng: Key | int, shape: tuple[int, ...] = (), p: float = 0.5) -> Tensor:
    """Draw ``True`` with probability p (to within 2⁻³²), as bool: a 32-bit word below p 2³².

    Raises   ``ValueError`` for a p that is no number from 0 to 1.
    """
    if not is_number(p) or not 0 <= p <= 1:
        raise value_error("bernoulli", "p must be a number from 0 to 1", repr(p))
    threshold = round(p * 2**32) - 2**31
    if threshold >= 2**31:  # beyond every int32, where a comparison would overflow
        return torch.ones(shape, dtype=torch.bool, device=as_key(rng).device)
    return _half_bits(rng, shape) < threshold


def permutation(rng: Key | int, n: int) -> Tensor:
    """Draw an order of 0 ... n-1, each as likely as any other, as int64 (n,): the order of n random words.

    Raises   ``ValueError`` for an n that is no whole number of at least 0.
    """
    if not is_whole(n) or n < 0:
        raise value_error("permutation", "n must be a whole number of at least 0", repr(n))
    return torch.argsort(bits(rng, (n,)), stable=True)


def exponential(rng: Key | int, shape: tuple[int, ...] = (), rate: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
    """Draw from the exponential distribution, of mean 1 / ``rate``: -log(u) / rate, narrow types in float32 and rounded.

    Raises   ``ValueError`` for a rate that is not a finite number above 0.
    """
    dtype = _floating(dtype)
    if not is_number(rate) or rate <= 0:
        raise value_error("exponential", "rate must be a finite number above 0", repr(rate))
    u = _open(rng, shape, torch.promote_types(dtype, torch.float32))
    return (-torch.log(u) / rate).to(dtype)


def randint(rng: Key | int, shape: tuple[int, ...] = (), low: int = 0, high: int = 2) -> Tensor:
    """Draw whole numbers from ``low`` ≤ x < ``high`` evenly, as int64: the upper half of a 64-bit word times their count.

    Each number has its probability to within 2⁻⁶⁴.

    Raises   ``ValueError`` for bounds that are no whole numbers from -2⁶³ to 2⁶³, low below high.
    """
    if not is_whole(low) or not is_whole(high) or not -(1 << 63) <= low < high <= 1 << 63:
        rule = "low and high must be whole numbers from -2**63 to 2**63, low below high"
        raise value_error("randint", rule, f"low={low!r}, high={high!r}")
    return _upper_product(bits(rng, shape), int(high) - int(low)) + int(low)


def _upper_product(words: Tensor, n: int) -> Tensor:
    """Return the upper 64 bits of unsigned words times n ≤ 2⁶⁴, from the products of 32-bit halves, which wrap around."""
    n_high, n_low = n >> 32, n & _HALF
    high, low = _shift(words, 32), words & _HALF
    if n_high == 0:  # no sum of these reaches 2⁶⁴
        return _shift(high * n_low + _shift(low * n_low, 32), 32)
    crossed, other = high * n_low, low * n_high
    carried = _shift(low * n_low, 32) + (crossed & _HALF) + (other & _HALF)
    return high * n_high + _shift(crossed, 32) + _shift(other, 32) + _shift(carried, 32)


_HALF = (1 << 32) - 1


def categorical(rng: Key | int, logits: Tensor, shape: tuple[int, ...] = (), dim: int = -1) -> Tensor:
    """Draw classes with the probabilities softmax(``logits``) along ``dim``, as int64: argmax(logits + Gumbel noise).

    The result has the axes ``shape``, for several draws of each, and then those of logits without ``dim``. A logit of -∞ is
    never drawn beside a finite one. Half precision is computed in float32.

    Raises   ``ValueError`` for logits that are no floating tensor with at least one class along ``dim``.
    """
    if not isinstance(logits, Tensor) or logits.dtype not in _DIGITS:
        raise value_error("categorical", "logits must be a floating tensor", logits)
    if not is_whole(dim) or not -logits.dim() <= dim < logits.dim() or logits.shape[dim] == 0:
        raise value_error("categorical", f"logits must have classes along the axis dim={dim!r}", logits)
    _count(shape)
    noisy = _noisy(rng, logits.movedim(dim, -1), shape)
    return torch.argmax(noisy, -1)


def _noisy(rng: Key | int, logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return logits with Gumbel noise, drawn for each of several draws."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide + gumbel(rng, (*shape, *logits.shape), wide.dtype)


def choice(
    rng: Key | int, a: int | Tensor, shape: tuple[int, ...] = (), *, replace: bool = True, p: Tensor | None = None
) -> Tensor:
    """Draw from 0 ... a - 1, or rows of a tensor ``a``, each as likely as any other or with probabilities in proportion to ``p``.

    Without ``replace`` no number is drawn twice; each draw is then made in proportion to p among those that are left.

    Raises   ``ValueError`` for an a that is no whole number above 0 and no tensor with rows, a p that is no floating tensor (a,),
             and, without replacement, for more draws than there are.
    """
    n = len(a) if isinstance(a, Tensor) and a.dim() else a
    if not is_whole(n) or n < 1:
        raise value_error("choice", "a must be a whole number above 0, or a tensor with rows", a)
    if p is not None and not (isinstance(p, Tensor) and p.dtype in _DIGITS and p.shape == (n,)):
        raise value_error("choice", f"p must be a floating tensor of shape ({n},)", p)
    if not isinstance(replace, bool):
        raise value_error("choice", "replace must be True or False", repr(replace))
    count = _count(shape)
    if not replace and count > n:
        raise value_error("choice", f"without replacement there must be at most {n} draws", f"{count}")
    index = _chosen(rng, int(n), shape, replace, p)
    return a[index] if isinstance(a, Tensor) else index


def _chosen(rng: Key | int, n: int, shape: tuple[int, ...], replace: bool, p: Tensor | None) -> Tensor:
    """Return the numbers drawn."""
    if replace:
        return randint(rng, shape, 0, n) if p is None else categorical(rng, torch.log(p), shape)
    count = _count(shape)
    order = permutation(rng, n) if p is None else torch.argsort(_noisy(rng, torch.log(p), ()), descending=True, stable=True)
    return order[:count].reshape(shape)
