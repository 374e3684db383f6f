"""Axes of pooling: torch's kernels take two or three axes and a batch; x gets the missing axes, and y loses them again.

Torch's backward kernels only read the shape and layout of x, so only an ``Origin`` is kept.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Kernel = Callable[..., Any]

Origin = tuple[tuple[int, ...], bool]
"""The shape of x, and whether its channels are adjacent in memory (``channels_last``)."""


def channelwise(kernel: Kernel) -> Kernel:
    """Make a kernel that requires a channel, but accepts an empty batch, accept zero channels: they become the batch."""

    def pool(x: Tensor, *rest: Any) -> Any:
        if x.shape[1]:
            return kernel(x, *rest)
        y = kernel(*[one.transpose(0, 1) if isinstance(one, Tensor) else one for one in (x, *rest)])
        return tuple([one.transpose(0, 1) for one in y]) if isinstance(y, tuple) else y.transpose(0, 1)

    return pool


def lifted(x: Tensor, axes: int) -> Tensor:
    """Give x a batch axis, and two axes instead of one."""
    x = x if x.dim() == axes + 2 else x.unsqueeze(0)
    return x.unsqueeze(-2) if axes == 1 else x


def lowered(y: Tensor, axes: int, dim: int) -> Tensor:
    """Remove the axes that ``lifted`` added to an x of ``dim`` axes."""
    y = y.squeeze(-2) if axes == 1 else y
    return y if dim == axes + 2 else y.squeeze(0)


def as_two(numbers: tuple[int, ...], first: int) -> tuple[int, ...]:
    """Give the option of one axis an entry for the axis before it, which has the length 1."""
    return numbers if len(numbers) > 1 else (first, *numbers)


def origin(x: Tensor, axes: int) -> Origin:
    """Return what the cache keeps of x."""
    at = -axes - 1
    return tuple(x.shape), axes == 2 and x.shape[at] > 1 and x.stride(at) == 1


def blank(gy: Tensor, of: Origin, axes: int) -> Tensor:
    """Return a tensor with the lifted shape and layout of x, without data."""
    shape, last = of
    if last:
        return lifted(gy.new_empty((*shape[:-3], *shape[-2:], shape[-3])).movedim(-1, -3), axes)
    return lifted(gy.new_empty(shape), axes)
