"""Kernels of padding. Torch's backward kernels only read the shape of x, so they get a dummy without memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.precision import in_single, rounded

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
    """Return a tensor with a shape and the memory of one element."""
    return like.new_empty(()).expand(shape)


def _added(backward: Kernel, gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Call a summing kernel in float32: in half precision it rounds each sum, and 3000 ones in bfloat16 add up to 256."""
    wide = in_single(gy)
    return rounded(backward(wide, _of_shape(wide, shape), pads), gy)


def _parts(pads: list[int]) -> tuple[list[int], list[int]]:
    """Return the sizes that are added around x, and those that are removed, as negative numbers."""
    return [max(n, 0) for n in pads], [min(n, 0) for n in pads]


def _cropped(x: Tensor, cuts: list[int]) -> Tensor:
    """Remove elements at the ends; raise ``RuntimeError`` if an axis would be empty."""
    y = torch.constant_pad_nd(x, cuts)
    if 0 in y.shape[y.dim() - len(cuts) // 2 :]:
        raise RuntimeError
    return y


def _padded(kernel: Kernel, x: Tensor, pads: list[int]) -> Tensor:
    """Call a kernel for positive pads, and apply negative ones afterwards, like torch. No kernel is called without channels."""
    if not x.numel() and x.shape[-1 - len(pads) // 2] == 0:
        return torch.constant_pad_nd(x, pads)
    if min(pads) >= 0:
        return kernel(x, pads)
    grown, cuts = _parts(pads)
    return _cropped(kernel(x, grown), cuts)


def _padded_backward(kernel: Kernel, gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    if not gy.numel() and shape[-1 - len(pads) // 2] == 0:
        return gy.new_zeros(shape)
    if min(pads) >= 0:
        return _added(kernel, gy, shape, pads)
    grown, cuts = _parts(pads)
    return _added(kernel, torch.constant_pad_nd(gy, [-n for n in cuts]), shape, grown)


def reflection(x: Tensor, pads: list[int]) -> Tensor:
    """Mirror x at its ends."""
    return _padded(_REFLECTION[len(pads) // 2 - 1][0], x, pads)


def reflection_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add the gradients of the mirrored elements to those of their originals."""
    return _padded_backward(_REFLECTION[len(pads) // 2 - 1][1], gy, shape, pads)


def replication(x: Tensor, pads: list[int]) -> Tensor:
    """Repeat the ends of x."""
    return _padded(_REPLICATION[len(pads) // 2 - 1][0], x, pads)


def replication_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add the gradients of the repeated elements to those of the ends."""
    return _padded_backward(_REPLICATION[len(pads) // 2 - 1][1], gy, shape, pads)


def _ends(pads: list[int]) -> list[tuple[int, int, int]]:
    """Return each padded axis with the sizes that are added before and after it."""
    return [(-1 - i, pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2) if pads[2 * i] or pads[2 * i + 1]]


def circular(x: Tensor, pads: list[int]) -> Tensor:
    """Pad with wrap-around, after removing elements, like torch; raise ``RuntimeError`` if it would wrap more than once."""
    if min(pads) < 0:
        pads, cuts = _parts(pads)
        x = _cropped(x, cuts)
    for d, low, high in _ends(pads):
        n = x.shape[d]
        if max(low, high) > n:
            raise RuntimeError
        x = torch.cat((x.narrow(d, n - low, low), x, x.narrow(d, 0, high)), d)
    return x


def circular_backward(gy: Tensor, shape: tuple[int, ...], pads: list[int]) -> Tensor:
    """Add the gradients of the wrapped elements to those of their originals."""
    grown, cuts = _parts(pads)
    for d, low, high in _ends(grown):
        n, before = shape[d] + cuts[-2 - 2 * d] + cuts[-1 - 2 * d], [0, 0] * (-1 - d)
        head = torch.constant_pad_nd(gy.narrow(d, 0, low), [*before, n - low, 0])
        tail = torch.constant_pad_nd(gy.narrow(d, low + n, high), [*before, 0, n - high])
        gy = gy.narrow(d, low, n) + head + tail
    return torch.constant_pad_nd(gy, [-n for n in cuts]) if any(cuts) else gy
