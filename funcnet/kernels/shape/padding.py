"""Kernels of padding. torch's backward ones ask for x and read its shape alone, so they get a stand-in without memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels.extremes import in_single, rounded

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

_REFLECTION: tuple[tuple[Kernel, Kernel], ...] = (
    (_aten.reflection_pad1d.default, _aten.reflection_pad1d_backward.default),
    (_aten.reflection_pad2d.default, _aten.reflection_pad2d_backward.default),
    (_aten.reflection_pad3d.default, _aten.reflection_pad3d_backward.default),
)
_REPLICATION: tuple[tuple[Kernel, Kernel], ...] = (
    (_aten.replication_pad1d.default, _aten.replication_pad1d_backward.default),
    (_aten.replication_pad2d.default, _aten.replication_pad2d_backward.default),
    (_aten.replication_pad3d.default, _aten.replication_pad3d_backward.default),
)


def _of_shape(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Make a tensor that has a shape, and memory for one element."""
    return like.new_empty(()).expand(shape)


def _added(backward: Kernel, gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Call a kernel that adds up; in half precision it would round each sum, so that of 3000 ones in bfloat16 256 are left."""
    wide = in_single(gy)
    return rounded(backward(wide, _of_shape(wide, shape), pads), gy)


def reflection(x: Tensor, pads: list[int]) -> Tensor:
    """Mirror x at its ends."""
    return _REFLECTION[len(pads) // 2 - 1][0](x, pads)


def reflection_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add up what was mirrored."""
    return _added(_REFLECTION[len(pads) // 2 - 1][1], gy, shape, pads)


def replication(x: Tensor, pads: list[int]) -> Tensor:
    """Repeat the ends of x."""
    return _REPLICATION[len(pads) // 2 - 1][0](x, pads)


def replication_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add up what was repeated."""
    return _added(_REPLICATION[len(pads) // 2 - 1][1], gy, shape, pads)


def _ends(pads: list[int]) -> list[tuple[int, int, int]]:
    """Return the axis, and what is put before and after it, of all axes that get anything."""
    return [(-1 - i, pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2) if pads[2 * i] or pads[2 * i + 1]]


def circular(x: Tensor, pads: list[int]) -> Tensor:
    """Go around; ``RuntimeError`` where it would be more than once."""
    for d, low, high in _ends(pads):
        n = x.shape[d]
        if max(low, high) > n:
            raise RuntimeError
        x = torch.cat((x.narrow(d, n - low, low), x, x.narrow(d, 0, high)), d)
    return x


def circular_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add the gradients of what went around the ends to those of the ends."""
    for d, low, high in _ends(pads):
        n, before = shape[d], [0, 0] * (-1 - d)
        head = torch.constant_pad_nd(gy.narrow(d, 0, low), [*before, n - low, 0])
        tail = torch.constant_pad_nd(gy.narrow(d, low + n, high), [*before, 0, n - high])
        gy = gy.narrow(d, low, n) + head + tail
    return gy
