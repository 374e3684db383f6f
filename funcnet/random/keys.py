"""Keys, and the bits drawn from them: SplitMix64 in tensor arithmetic.

``rng`` is a key or an int seed, ``shape`` a tuple of whole numbers.
"""

import math
from collections.abc import Callable
from contextvars import ContextVar
from numbers import Integral

import torch
from torch import Tensor

from funcnet.errors import describe, is_whole, value_error

Key = Tensor
"""A 0-d int64 tensor."""


def _to_int64(word: int) -> int:
    """Return the int64 equal to a whole number modulo 2⁶⁴; numbers in range are returned unchanged."""
    if -(1 << 63) <= word < 1 << 63:
        return word
    return (word + (1 << 63)) % (1 << 64) - (1 << 63)


_HIGH, _LOW = 0x9E3779B9, 0x7F4A7C15
_GAMMA = _to_int64(_HIGH << 32 | _LOW)
_M1, _M2 = _to_int64(0xBF58476D1CE4E5B9), _to_int64(0x94D049BB133111EB)
# The golden-ratio and π words separate the keys from split, the keys from fold_in, and the draws of a key.
_SPLIT, _FOLD = _to_int64(0x243F6A8885A308D3), _to_int64(0x13198A2E03707344)


def shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift copies the sign.

    The operator ``z >> bits`` would return a DTensor unchanged: torch takes an operation whose name ends in an underscore for an
    in-place one.
    """
    return z.bitwise_right_shift(bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Mix in place, on new tensors: for large draws fresh memory costs more than the arithmetic.

    On the meta device there are no bits to mix: skipping the arithmetic there shortens a summary of 96 transformer blocks from 25
    to 8 s.
    """
    if z.is_meta:
        return z
    z = shift_right(z, 30).bitwise_xor_(z).mul_(_M1)
    z = shift_right(z, 27).bitwise_xor_(z).mul_(_M2)
    return shift_right(z, 31).bitwise_xor_(z)


def _multiples(i: Tensor) -> Tensor:
    """Return i γ.

    Inductor turns a product with a position into index arithmetic, where an overflow lets the C++ compiler drop the end of the
    loop. Compiled code therefore multiplies the halves of γ, after an operation that indices do not have, and joins them with |.
    """
    if not torch.compiler.is_compiling():
        return i * _GAMMA
    i = i ^ 0
    low = i * _LOW
    return (i * _HIGH + (low >> 32) << 32) | (low & 0xFFFFFFFF)


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def key(seed: int) -> Key:
    """Make a key from a seed.

    Args:
        seed: Any whole number; seeds that differ by a multiple of 2⁶⁴ give the same key.

    Returns:
        A 0-d int64 tensor in main memory.

    Raises:
        ValueError: If ``seed`` is not a whole number.

    >>> key(0)
    tensor(0)
    """
    if not is_whole(seed):
        raise value_error("key", "the seed must be a whole number", seed)
    return torch.tensor(_to_int64(int(seed)), dtype=torch.int64)


def as_key(rng: Key | int) -> Key:
    """Return a key unchanged, or make one from an int seed.

    Args:
        rng: A key or an int seed.

    Returns:
        A key.

    Raises:
        ValueError: If ``rng`` is neither.

    >>> as_key(7)
    tensor(7)
    """
    if isinstance(rng, Tensor) and rng.dtype is torch.int64 and rng.dim() == 0:
        return rng
    if is_whole(rng):
        return key(int(rng))
    raise value_error("rng", "it must be a key, fn.key(seed), or an int seed", describe(rng))


def key_beside(rng: Key | int, like: Tensor) -> Key | int:
    """Return the key on the device of the tensor that its draws are combined with; the bits are the same on every device.

    Keys are usually folded in main memory. For a net on a GPU, a layer moves its key when it draws: 8 bytes, without waiting.
    """
    if isinstance(rng, Tensor) and rng.is_cpu is like.is_cpu:
        return rng
    return rng if like.is_cpu and is_whole(rng) else as_key(rng).to(like.device)


def split(rng: Key | int, n: int = 2) -> Tensor:
    """Make independent keys from one.

    Args:
        rng: A key or an int seed.
        n: Number of keys.

    Returns:
        An int64 tensor (n,) that unpacks into keys.

    Raises:
        ValueError: If ``n`` is not a whole number of at least 0.

    >>> first, second = split(0)
    >>> first.shape, bool(first == second)
    (torch.Size([]), False)
    """
    rng = as_key(rng)
    if not is_whole(n) or n < 0:
        raise value_error("split", "n must be a whole number of at least 0", n)
    return bits(rng ^ _SPLIT, (n,))


def fold_in(rng: Key | int, data: int | str | Tensor) -> Key:
    """Derive a key for a number, like a step or the position of a layer, or for a word: ``fold_in(key, "dropout")``.

    Args:
        rng: A key or an int seed.
        data: A whole number; an integer tensor (...), for one key per element; or a word, which is replaced by its 64-bit FNV-1a
            hash.

    Returns:
        A key, or an int64 tensor (...) of keys.

    Raises:
        ValueError: If ``data`` is none of these.

    >>> bool(fold_in(0, 1) == fold_in(0, 1)), bool(fold_in(0, 1) == fold_in(0, 2))
    (True, False)
    """
    rng = as_key(rng)
    if isinstance(data, str):
        data = _hash(data)
    if not is_whole(data) and not (isinstance(data, Tensor) and data.dtype in _INTEGERS):
        raise value_error("fold_in", "data must be a whole number, a string or an integer tensor", data)
    word = data.to(torch.int64) if isinstance(data, Tensor) else key(data)
    return _mix(_multiples(word.to(rng.device)) + _mix(rng + _FOLD))


def _hash(word: str) -> int:
    """Return the 64-bit FNV-1a hash of a word in UTF-8; Python's own hash differs between processes."""
    found = 0xCBF29CE484222325
    for byte in word.encode():
        found = ((found ^ byte) * 0x100000001B3) % (1 << 64)
    return found


draw_watcher: ContextVar[Callable[[Key], None] | None] = ContextVar("draw_watcher", default=None)
"""A function called with the key of every draw in eager mode; ``funcnet.testing.forbid_key_reuse`` sets it."""


def bits(rng: Key | int, shape: tuple[int, ...] = ()) -> Tensor:
    """Draw 64 random bits for each element.

        x[i] = mix(rng + (i + 1) γ)        for i = 0, 1, ..., as in the module's docstring

    Args:
        rng: A key or an int seed.
        shape: The shape of the result.

    Returns:
        An int64 tensor of this shape.

    Raises:
        ValueError: If ``shape`` is not a tuple of whole numbers of at least 0.

    >>> bits(0, (2,)).dtype
    torch.int64
    """
    rng = as_key(rng)
    if not torch.compiler.is_compiling() and (watcher := draw_watcher.get()) is not None:
        watcher(rng)
    drawn = _mix(_multiples(torch.arange(1, count_of(shape) + 1, device=rng.device)) + rng)
    return drawn if len(shape) == 1 else drawn.reshape(shape)


# Sizes may be symbolic in compiled code.
_SIZES = (Integral, torch.SymInt)
_MOST_ELEMENTS = 2**60 - 1  # of 8 bytes each, which torch counts in 64 bits


def count_of(shape: tuple[int, ...], who: object = "random") -> int:
    """Return the number of elements of a shape."""
    if not isinstance(shape, tuple) or [n for n in shape if not isinstance(n, _SIZES) or isinstance(n, bool) or n < 0]:
        raise value_error(who, "the shape must be a tuple of whole numbers of at least 0", repr(shape))
    count = math.prod(shape)
    if isinstance(count, int) and count > _MOST_ELEMENTS:
        raise value_error(who, "the shape must have fewer than 2**60 elements", str(tuple(shape)))
    return count


def half_bits(rng: Key | int, shape: tuple[int, ...]) -> Tensor:
    """Draw 32 random bits for each element, as int32; each 64-bit draw provides two."""
    rng = as_key(rng)
    count = count_of(shape)
    if isinstance(count, int):
        return bits(rng, ((count + 1) // 2,)).view(torch.int32)[:count].reshape(shape)
    # For a symbolic size, as in exported programs, torch cannot prove that a slice fits.
    return bits(rng, (count // 2 + 1,)).view(torch.int32).index_select(0, torch.arange(count, device=rng.device)).reshape(shape)
