"""Kernels of convolutions, and of padding."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.private_names import builtin
from funcnet.kernels.tracing import is_plain, is_plain_for_inductor
from funcnet.precision import in_single, rounded

_aten = torch.ops.aten
_pad: Callable[..., Tensor] = builtin("pad")

Kernel = Callable[..., Tensor]

_convolutions: dict[int, Kernel] = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
transposed: dict[int, Kernel] = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}
unfold: Kernel = _aten.im2col.default
_fold: Kernel = _aten.col2im.default
convolution_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _aten.convolution_backward.default


IMAGES = choice("order of images", {"as given": NEVER, "channels_last": 0}, lambda cpu: 1 << 18, "numbers of y")
"""Number of elements of y from which an image with few channels is converted to channels_last; see ``_is_image``."""

WEIGHTS = choice("order beside large weights", {"as given": NEVER, "contiguous": 0}, lambda cpu: 1 << 20, "numbers of the weight")
"""Number of elements of a weight from which a channels_last x is copied instead of the weight; see ``_is_small_beside``."""


def convolution(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Convolve over all axes of w but two: return y, and the x that the kernel used, from which to compute the gradients."""
    if w.dim() == 4 and 1 < w.shape[1] <= 4 and _is_image(x, w):
        x = x.contiguous(memory_format=torch.channels_last)
    elif w.dim() == 4 and w.numel() >= WEIGHTS.value and _is_small_beside(x, w):
        x = x.contiguous()
    return _convolutions[w.dim() - 2](x, w, b, stride, padding, dilation, groups), x


def _is_image(x: Tensor, w: Tensor) -> bool:
    """Return whether to convert x to channels_last: if it is large, has few channels, and its memory order is free.

    The conversion costs almost nothing for few channels, and all later layers keep the order, in which convolutions and batch
    norms of many channels are faster: a step of a residual net on 32 images of 3×32×32 takes 65 ms, and 84 in the order of x. For
    one channel it makes no difference: a step of LeNet on 64 images takes 9.0 ms either way.
    """
    free = x.dim() == 4 and x.dtype is torch.float32 and _is_free(x, w)  # checked first: an exported size cannot be compared
    return free and x.shape[0] * x.shape[2] * x.shape[3] * w.shape[0] >= IMAGES.value


def _is_small_beside(x: Tensor, w: Tensor) -> bool:
    """Return whether x is channels_last and the weight, which the kernels would copy, is many times larger.

    They copy it in both passes, and return a gradient in a different memory order than the weight, which slows optimizers down.
    Both passes of 512 to 512 channels 3×3 on 4, 16 and 64 images of 4×4 take 8.5, 22 and 68 ms with x copied, and 19, 33 and 78
    in channels_last; from 256 to 512 channels on 16 images of 8×8 12.1 and 13.0. Smaller weights are copied within the caches:
    256 to 256 channels on 16 images of 8×8, with twice as many weights as elements of x, take 17.3 and 15.9. A 1×1 weight is the
    same in both orders.
    """
    if not _is_free(x, w) or x.dim() != 4 or x.is_contiguous() or w.numel() < 4 * x.numel() or not w.is_contiguous():
        return False
    return not w.is_contiguous(memory_format=torch.channels_last)


def _is_free(x: Tensor, w: Tensor) -> bool:
    """Return whether the memory order of x may be changed: in eager mode, and in code that Inductor compiles."""
    return is_plain(x, w) or is_plain_for_inductor(x, w)


def pad_by(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """Extend the last axes with a constant."""
    ends = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return torch.constant_pad_nd(x, ends, value) if any(ends) else x


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], mode: str) -> Tensor:
    """Extend the last axes with zeros or, depending on ``mode``, with elements of x."""
    ends = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    if mode == "zeros" or not any(ends):
        return pad_by(x, before, after, 0.0)
    if x.numel() == 0:  # the kernels accept an empty batch, but no second empty axis
        return x.new_zeros(*x.shape[: -len(before)], *[n + b + a for n, b, a in _ends(x, before, after)])
    if mode == "circular":
        return _around(x, before, after)
    return _pad(x, ends, mode)


def _around(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Extend x with its opposite ends; torch's circular padding loses the memory format channels_last."""
    for axis, (n, b, a) in enumerate(_ends(x, before, after), start=x.dim() - len(before)):
        x = torch.cat((x.narrow(axis, n - b, b), x, x.narrow(axis, 0, a)), axis) if b or a else x
    return x


def _ends(x: Tensor, before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int]]:
    return [*zip(x.shape[x.dim() - len(before) :], before, after, strict=True)]


def pad_backward(g: Tensor, before: Sequence[int], after: Sequence[int], mode: str) -> Tensor:
    """Return the gradient of x from that of the padded x: sum over each element and its copies."""
    for axis, (b, a) in enumerate(zip(before, after, strict=True)):
        if b or a:
            g = _FOLDS[mode](g, g.dim() - len(before) + axis, b, a)
    return g


def _cut(g: Tensor, axis: int, before: int, after: int) -> Tensor:
    return g.narrow(axis, before, g.shape[axis] - before - after)


def _fold_back(g: Tensor, axis: int, before: int, after: int) -> Tensor:
    gx = _cut(g, axis, before, after).clone()
    length = gx.shape[axis]
    gx.narrow(axis, 1, before).add_(g.narrow(axis, 0, before).flip(axis))
    gx.narrow(axis, length - 1 - after, after).add_(g.narrow(axis, before + length, after).flip(axis))
    return gx


def _fold_ends(g: Tensor, axis: int, before: int, after: int) -> Tensor:
    gx = _cut(g, axis, before, after).clone()
    length = gx.shape[axis]
    gx.narrow(axis, 0, 1).add_(g.narrow(axis, 0, before).sum(axis, keepdim=True))
    gx.narrow(axis, length - 1, 1).add_(g.narrow(axis, before + length, after).sum(axis, keepdim=True))
    return gx


def _fold_around(g: Tensor, axis: int, before: int, after: int) -> Tensor:
    gx = _cut(g, axis, before, after).clone()
    length = gx.shape[axis]
    gx.narrow(axis, length - before, before).add_(g.narrow(axis, 0, before))
    gx.narrow(axis, 0, after).add_(g.narrow(axis, before + length, after))
    return gx


# Slices support all layouts, empty batches and vmap; torch's kernels for 1, 2 and 3 axes differ in what they support.
_FOLDS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "zeros": _cut,
    "reflect": _fold_back,
    "replicate": _fold_ends,
    "circular": _fold_around,
}


def windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], places: Sequence[int]) -> Tensor:
    """Copy the elements of each window over the last axes: (N, channels, elements of a window, windows).

    A plain x is copied at once: windows of 3×3 over 32×16×34×34 elements take 0.5 ms, and 2.0 with one copy per element of a
    window.
    """
    if is_plain(x):
        own, along = x.stride()[:2], x.stride()[2:]
        steps = [[n * at for n, at in zip(by, along, strict=True)] for by in (dilation, stride)]
        return (
            x.as_strided((*x.shape[:2], *kernel, *places), (*own, *steps[0], *steps[1])).flatten(2 + len(kernel)).flatten(2, -2)
        )
    seen = [part.flatten(2) for part in _seen(x, kernel, stride, dilation, places)]
    return torch.stack(seen, 2)


def windows_backward(
    g: Tensor, padded: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], places: Sequence[int]
) -> Tensor:
    """Return the gradient of x, whose last axes have the lengths ``padded``: the sum over all copies of each element."""
    gx = in_single(g).new_zeros((*g.shape[:2], *padded))
    for part, gpart in zip(_seen(gx, kernel, stride, dilation, places), g.unbind(2), strict=True):
        part.add_(gpart.reshape(part.shape))
    return rounded(gx, g)


def fold(x: Tensor, *options: Any) -> Tensor:
    """Sum columns into an image; half precision is summed in float32, since the kernel would round after each window."""
    return rounded(_fold(in_single(x), *options), x)


def _seen(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], places: Sequence[int]
) -> Iterator[Tensor]:
    """Yield, for each element of a window in order, the view of x with this element of all windows.

    Each view is created on demand: ``torch.func`` does not track a write to a view that is older than another write.
    """
    columns = [*zip(stride, dilation, places, strict=True)]
    for at in itertools.product(*[range(k) for k in kernel]):
        slices = [slice(d * i, d * i + s * (n - 1) + 1, s) for i, (s, d, n) in zip(at, columns, strict=True)]
        yield x[(slice(None), slice(None), *slices)]
