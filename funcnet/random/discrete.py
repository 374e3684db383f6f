"""Draws of booleans, whole numbers, classes and permutations.

``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers, () for a single draw.
"""

import torch
from torch import Tensor

from funcnet.errors import is_number, is_whole, value_error
from funcnet.random.continuous import DIGITS, gumbel
from funcnet.random.keys import Key, as_key, bits, count_of, half_bits, shift_right


def bernoulli(rng: Key | int, shape: tuple[int, ...] = (), p: float = 0.5) -> Tensor:
    """Draw ``True`` with probability p, to within 2⁻³².

        x = (a uniform 32-bit word < p 2³²)

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        p: The probability of ``True``.

    Returns:
        A bool tensor of this shape.

    Raises:
        ValueError: If ``p`` is not a number from 0 to 1.

    >>> bernoulli(0, (3,), p=1.0)
    tensor([True, True, True])
    """
    if not is_number(p) or not 0 <= p <= 1:
        raise value_error("bernoulli", "p must be a number from 0 to 1", repr(p))
    threshold = round(p * 2**32) - 2**31
    if threshold >= 2**31:  # larger than any int32: a comparison would overflow
        return torch.ones(shape, dtype=torch.bool, device=as_key(rng).device)
    return half_bits(rng, shape) < threshold


def permutation(rng: Key | int, n: int) -> Tensor:
    """Draw a permutation of 0 ... n - 1, each with equal probability: the order of n random words.

    Args:
        rng: A key or an int seed.
        n: Number of elements.

    Returns:
        An int64 tensor (n,).

    Raises:
        ValueError: If ``n`` is not a whole number of at least 0.

    >>> sorted(permutation(0, 4).tolist())
    [0, 1, 2, 3]
    """
    if not is_whole(n) or n < 0:
        raise value_error("permutation", "n must be a whole number of at least 0", repr(n))
    return torch.argsort(bits(rng, (n,)), stable=True)


def randint(rng: Key | int, shape: tuple[int, ...] = (), low: int = 0, high: int = 2) -> Tensor:
    """Draw whole numbers uniformly from ``low`` ≤ x < ``high``; each probability is exact to within 2⁻⁶⁴.

        x = low + the upper 64 bits of (word · (high - low))

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.
        low: The lower bound, included.
        high: The upper bound, not included.

    Returns:
        An int64 tensor of this shape.

    Raises:
        ValueError: If the bounds are not whole numbers from -2⁶³ to 2⁶³, ``low`` below ``high``.

    >>> randint(0, (3,), 5, 6)
    tensor([5, 5, 5])
    """
    if not is_whole(low) or not is_whole(high) or not -(1 << 63) <= low < high <= 1 << 63:
        rule = "low and high must be whole numbers from -2**63 to 2**63, low below high"
        raise value_error("randint", rule, f"low={low!r}, high={high!r}")
    return _upper_product(bits(rng, shape), int(high) - int(low)) + int(low)


def _upper_product(words: Tensor, n: int) -> Tensor:
    """Return the upper 64 bits of unsigned words times n ≤ 2⁶⁴, computed from products of 32-bit halves, which wrap around."""
    n_high, n_low = n >> 32, n & _HALF
    high, low = shift_right(words, 32), words & _HALF
    if n_high == 0:  # no sum of these reaches 2⁶⁴
        return shift_right(high * n_low + shift_right(low * n_low, 32), 32)
    crossed, other = high * n_low, low * n_high
    carried = shift_right(low * n_low, 32) + (crossed & _HALF) + (other & _HALF)
    return high * n_high + shift_right(crossed, 32) + shift_right(other, 32) + shift_right(carried, 32)


_HALF = (1 << 32) - 1


def categorical(rng: Key | int, logits: Tensor, shape: tuple[int, ...] = (), dim: int = -1) -> Tensor:
    """Draw classes with the probabilities softmax(``logits``) along ``dim``.

        x = argmax(logits + Gumbel noise)

    A class with the logit -∞ is never drawn if another logit is finite. Half precision is computed in float32.

    Args:
        rng: A key or an int seed.
        logits: A floating tensor with at least one class along ``dim``.
        shape: The leading axes of the result, for several draws from each distribution.
        dim: The axis of the classes.

    Returns:
        An int64 tensor with the axes ``shape``, then the axes of ``logits`` without ``dim``.

    Raises:
        ValueError: If ``logits`` is not floating, or has no classes along ``dim``.

    >>> categorical(0, torch.tensor([-torch.inf, 0.0]), (3,))
    tensor([1, 1, 1])
    """
    if not isinstance(logits, Tensor) or logits.dtype not in DIGITS:
        raise value_error("categorical", "logits must be a floating tensor", logits)
    if not is_whole(dim) or not -logits.dim() <= dim < logits.dim() or logits.shape[dim] == 0:
        raise value_error("categorical", f"logits must have classes along the axis dim={dim!r}", logits)
    count_of(shape)
    noisy = _add_noise(rng, logits.movedim(dim, -1), shape)
    return torch.argmax(noisy, -1)


def _add_noise(rng: Key | int, logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return logits plus Gumbel noise, with separate noise for each draw."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide + gumbel(rng, (*shape, *logits.shape), wide.dtype)


def choice(
    rng: Key | int, a: int | Tensor, shape: tuple[int, ...] = (), *, replace: bool = True, p: Tensor | None = None
) -> Tensor:
    """Draw from 0 ... a - 1, or from the rows of a tensor ``a``, with equal or given probabilities.

    Without replacement no row is drawn twice, and each draw has probabilities proportional to ``p`` among the remaining rows.

    Args:
        rng: A key or an int seed.
        a: The number of choices, or a tensor to draw rows of.
        shape: The shape of the draws.
        replace: Whether a choice can be drawn several times.
        p: A floating tensor (a,) proportional to the probabilities; ``None`` for equal probabilities.

    Returns:
        An int64 tensor of this shape, or the rows of ``a``, (*shape, ...).

    Raises:
        ValueError: If ``a`` or ``p`` is invalid, or without replacement there are more draws than choices.

    >>> sorted(choice(0, 3, (3,), replace=False).tolist())
    [0, 1, 2]
    """
    n = len(a) if isinstance(a, Tensor) and a.dim() else a
    if not is_whole(n) or n < 1:
        raise value_error("choice", "a must be a whole number above 0, or a tensor with rows", a)
    if n >= 1 << 63:
        raise value_error("choice", "a must be below 2**63", repr(n))
    if p is not None and not (isinstance(p, Tensor) and p.dtype in DIGITS and p.shape == (n,)):
        raise value_error("choice", f"p must be a floating tensor of shape ({n},)", p)
    if not isinstance(replace, bool):
        raise value_error("choice", "replace must be True or False", repr(replace))
    count = count_of(shape)
    if not replace and count > n:
        raise value_error("choice", f"without replacement there must be at most {n} draws", f"{count}")
    index = _choose(rng, int(n), shape, replace, p)
    return a[index] if isinstance(a, Tensor) else index


def _choose(rng: Key | int, n: int, shape: tuple[int, ...], replace: bool, p: Tensor | None) -> Tensor:
    """Return the indices of the choices drawn."""
    if replace:
        return randint(rng, shape, 0, n) if p is None else categorical(rng, torch.log(p), shape)
    count = count_of(shape)
    order = permutation(rng, n) if p is None else torch.argsort(_add_noise(rng, torch.log(p), ()), descending=True, stable=True)
    return order[:count].reshape(shape)
