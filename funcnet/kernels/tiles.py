"""Adjacent windows along the last axes of x: maxima, sums and their gradients, computed with operations on whole slices.

Remaining elements at the ends belong to no window. Slices are made contiguous first, since kernels are vectorized only for
contiguous memory. In windows with rows of two, a row is read as one number of twice the width. Extracting its halves takes a
third of the time of strided copies: for 64×16×28×28 elements 28 + 48 µs per row of all windows, instead of 146 for each half (AMD
EPYC).
"""

import functools
import itertools
import math
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.threads import are_several, with_one_openmp_thread
from funcnet.precision import in_single, rounded

_HALVES = {4: (torch.int64, torch.int32), 2: (torch.int32, torch.int16)} if sys.byteorder == "little" else {}
"""The integer dtypes with the size of two elements and of one, by the bytes of an element."""

PAIRS = choice("threads of maxima in pairs", {"one": NEVER, "all": 0}, lambda cpu: 1 << 23, "elements of x")
"""Number of elements of x from which maxima with indices use all threads, for windows with rows of two.

µs for windows of 2×2 (AMD EPYC, Zen 4, two cores):

    x                    two threads   one
    64×32×14×14            443           413
    64×16×28×28           1185           647
    64×64×28×28           8983          3846
    64×64×56×56          26131         25823

For windows of 3×3, two threads take 0.5 to 0.7 times as long as one.
"""

Found = tuple[Tensor, Tensor | None]
"""The maximum of some tensors, and its offset from the first tensor; ``None`` for 0."""


def tile_reduce(x: Tensor, kernel: tuple[int, ...], f: Callable[..., Tensor]) -> Tensor:
    """Reduce each window with a function of two tensors, one axis after the other."""
    for axis, k in enumerate(kernel[:-1], start=x.dim() - len(kernel)):
        x = functools.reduce(f, _strided(x, axis, k))
    is_owned = max(kernel[:-1], default=1) > 1  # f preserves the order of an x that is not contiguous
    if kernel[-1] == 2 and is_owned and x.element_size() in _HALVES and _is_in_pairs(x):
        return f(*_halves(x.view(_HALVES[x.element_size()][0]), x.dtype))
    return functools.reduce(f, _strided(x, x.dim() - 1, kernel[-1]))


def tile_max(x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Return the largest element of each window."""
    return tile_reduce(x, kernel, torch.maximum)


def tile_max_with_indices(x: Tensor, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    """Return the largest element of each window, the first of equal ones, and its index in x's flattened axes.

    Return ``None`` if an element may be NaN, for which other rules apply; the sum of y shows that, in 8 µs for 64×16×14×14.
    Indices are computed in the dtype of x, with masks of 1 and 0: bool masks take three times as long.
    """
    alone = kernel[-1] == 2 and are_several() and x.numel() < PAIRS.value
    return (_max_on_one_thread if alone else _max_with_indices)(x, kernel)


def _max_with_indices(x: Tensor, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    shape, wide = x.shape[-len(kernel) :], in_single(x)
    steps = [math.prod(shape[i + 1 :]) for i in range(len(kernel))]
    found = _first_of_rows(wide, kernel)
    for k, step in zip(kernel[-2::-1], steps[-2::-1], strict=True):
        found = [_first_of(found[i : i + k], step) for i in range(0, len(found), k)]
    ((y, code),) = found
    if code is None or math.isnan(y.sum()):
        return None
    code.add_(_first_indices(y.shape[-len(kernel) :], kernel, steps, y.dtype))
    return rounded(y, x), code.to(torch.int32).to(torch.int64)


_max_on_one_thread = with_one_openmp_thread(_max_with_indices)


def _first_indices(windows: Sequence[int], kernel: Sequence[int], steps: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return the index of each window's first element in x's flattened axes."""
    first = torch.zeros((), dtype=dtype)
    for n, k, step in zip(windows, kernel, steps, strict=True):
        first = first.unsqueeze(-1) + torch.arange(0, n * k * step, k * step, dtype=dtype)
    return first


def _first_of_rows(x: Tensor, kernel: tuple[int, ...]) -> list[Found]:
    """Return the maxima of the rows of windows, one row after the other, so that the data stays in the cache."""
    if kernel[-1] != 2 or x.element_size() not in _HALVES:
        rows = [_strided(row, row.dim() - 1, kernel[-1]) for row in _tiles(x, (*kernel[:-1], 1))]
        return [_first_of([(_ordered(part), None) for part in row], 1) for row in rows]
    if not _is_in_pairs(x):
        x = _ordered(x.narrow(-1, 0, x.shape[-1] // 2 * 2))
    pairs = _tiles(x.view(_HALVES[x.element_size()][0]), (*kernel[:-1], 1))
    return [_first_of([(half, None) for half in _halves(_ordered(row), x.dtype)], 1) for row in pairs]


def _first_of(found: Sequence[Found], step: int) -> Found:
    """Return the maximum of some tensors, whose memory is reused, and its offset from the first tensor."""
    y, code = found[0]
    for i, (part, at) in enumerate(found[1:], start=1):
        larger = torch.maximum(y, part)
        code = _moved(code, at, y.lt_(part), i * step)
        y = larger
    return y, code


def _moved(code: Tensor | None, at: Tensor | None, is_later: Tensor, offset: int) -> Tensor:
    """Return ``at + offset`` where the mask is 1, and ``code`` where it is 0; ``None`` means 0 for both."""
    if code is not None and at is not None:
        return code.lerp_(at, is_later).add_(is_later, alpha=offset)
    moved = is_later.mul_(offset) if offset > 1 else is_later
    return moved if code is None else torch.maximum(code, moved)  # offsets grow


def tile_spread(g: Tensor, like: Tensor, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Tensor:
    """Return a tensor of this shape with each element of g throughout its window, and 0 after the last windows."""
    rest = any([n % k for n, k in zip(shape[-len(kernel) :], kernel, strict=True)])  # noqa: C419
    gx = like.new_zeros(shape) if rest else like.new_empty(shape)
    if kernel[-1] == 2 and g.dtype in (torch.float32, torch.float64):
        whole = gx.narrow(-1, 0, 2 * g.shape[-1])
        g = torch.view_as_real(torch.complex(g, g)).flatten(-2)  # repeats elements in 79 µs; two strided copies take 280
        parts = _tiles(whole, (*kernel[:-1], 1))
    else:
        parts = _tiles(gx, kernel)
    for part in parts:
        part.copy_(g)
    return gx


def _is_in_pairs(x: Tensor) -> bool:
    """Return whether x can be viewed as pairs of elements: in contiguous memory an axis of size 1 can have an odd stride."""
    return x.is_contiguous() and not any([n % 2 for n in (x.shape[-1], x.storage_offset(), *x.stride()[:-1])])  # noqa: C419


def _halves(pairs: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return the first and the second element of each pair, reusing its memory."""
    half, bits = _HALVES[dtype.itemsize][1], 8 * dtype.itemsize
    first = pairs.to(half).view(dtype)  # the lower half, by overflow
    return [first, pairs.bitwise_right_shift_(bits).to(half).view(dtype)]


def _ordered(x: Tensor) -> Tensor:
    """Return a contiguous copy of x, even if x is already contiguous."""
    return x.clone(memory_format=torch.contiguous_format)


def _strided(x: Tensor, axis: int, k: int) -> list[Tensor]:
    whole = x.narrow(axis, 0, x.shape[axis] // k * k)
    at = (slice(None),) * axis
    return [whole[(*at, slice(i, None, k))] for i in range(k)]


def _tiles(x: Tensor, kernel: tuple[int, ...]) -> list[Tensor]:
    """Return the first elements of all windows, the second elements, and so on, in the order of x."""
    parts = [x]
    for axis, k in enumerate(kernel, start=x.dim() - len(kernel)):
        parts = list(itertools.chain.from_iterable([_strided(part, axis, k) for part in parts]))
    return parts
