"""Axes of pooling: torch's kernels require two or three axes and a batch. Missing axes are added to x and removed from y.

Torch's backward kernels read only the shape and layout of x, so only an ``Origin`` is cached.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Kernel = Callable[..., Any]

Origin = tuple[tuple[int, ...], bool]
"""The shape of x, and whether its channels are adjacent in memory (``channels_last``)."""


def channelwise(kernel: Kernel) -> Kernel:
    """Wrap a kernel that accepts an empty batch but not zero channels: zero channels become the batch."""

    def pool(x: Tensor, *rest: Any) -> Any:
        if x.shape[1]:
            return kernel(x, *rest)
        y = kernel(*[one.transpose(0, 1) if isinstance(one, Tensor) else one for one in (x, *rest)])
        return tuple([one.transpose(0, 1) for one in y]) if isinstance(y, tuple) else y.transpose(0, 1)

    return pool


def lifted(x: Tensor, axes: int) -> Tensor:
    """Add missing axes to x: a batch, and a second axis if ``axes`` is 1."""
    x = x if x.dim() == axes + 2 else x.unsqueeze(0)
    return x.unsqueeze(-2) if axes == 1 else x


def lowered(y: Tensor, axes: int, dim: int) -> Tensor:
    """Remove the axes that ``lifted`` added to an x of ``dim`` axes."""
    y = y.squeeze(-2) if axes == 1 else y
    return y if dim == axes + 2 else y.squeeze(0)


def as_two(numbers: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Extend the options of a single axis with ``first``, the option of the added axis of length 1."""
    return numbers if len(numbers) > 1 else (first, *numbers)


def origin(x: Tensor, axes: int) -> Origin:
    """Return the properties of x that the cache keeps."""
    at = -axes - 1
    return tuple(x.shape), axes == 2 and x.shape[at] > 1 and x.stride(at) == 1


def blank(gy: Tensor, of: Origin, axes: int) -> Tensor:
    """Return a tensor with the shape and layout of the lifted x, without data."""
    shape, last = of
    if last:
        return lifted(gy.new_empty((*shape[:-3], *shape[-2:], shape[-3])).movedim(-1, -3), axes)
    return lifted(gy.new_empty(shape), axes)
