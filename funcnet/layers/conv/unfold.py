"""Folding: copy the windows of an image into columns, and add columns back into an image.

c is a channel, t a window and k one of the K elements of a window. t, k and i are pairs of indices, for height and width; in the
axes of columns they are flattened. x is zero outside its range.
"""

import math
from typing import ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, floating_complaint, kind_of, require_floating
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import fields_error, whole_numbers
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, Window, Windowed, each, hashable
from funcnet.value import frozen


def _window(layer: "Unfold | Fold") -> Window:
    kernel, stride, dilation, padding = (
        each(option, 2) for option in (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    )
    return Window(kernel, stride, dilation, padding, padding)


def _options(layer: "Unfold | Fold") -> tuple[Shape, Shape, Shape, Shape]:
    """Return the options in the order of the kernels' arguments."""
    window = _window(layer)
    return window.kernel, window.dilation, window.before, window.stride


@frozen
class Unfold(Windowed):
    """Windows of an image as columns (im2col).

        y[n, c K + k, t] = x[n, c, s t + d k - p]                 s = stride, d = dilation, p = padding
        gx               = Fold of gy

    A convolution is the product of its weight with these columns.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        padding: Number of zeros before and after x; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two.

    Shape:
        x (N, channels, H, W) → y (N, channels · K, windows), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If x is shorter than the window.

    References:
        ``torch.nn.Unfold``.

    >>> import torch
    >>> Unfold(2)({}, torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 12, 9])
    """

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))

    axes: ClassVar[int] = 2

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Shape, Tensor]]:
        require_floating(self, params, x)
        y = kernels.unfold(x, *_options(self))
        return y, (tuple(x.shape[-2:]), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        lengths, shape, kind = cache
        return params, kernels.fold(check_gy(self, gy, shape, kind), lengths, *_options(self))

    @property
    def least_lengths(self) -> Shape:
        return _window(self).least_lengths()

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or (None if x.shape[-3] else "x must have a channel")


@frozen
class Fold(Windowed):
    """Columns added into an image (col2im): the transpose of ``Unfold``, not its inverse.

        y[n, c, i] = Σ_{k, t: s t + d k - p = i} x[n, c K + k, t]        s = stride, d = dilation, p = padding
        gx         = Unfold of gy

    Elements that belong to several windows are summed.

    Args:
        output_size: Height and width of y; one number for both axes, or a tuple of two.
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        padding: Number of elements removed from both ends of y; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two.

    Shape:
        x (N, channels · K, windows) → y (N, channels, *output_size), or both without N.

    Cache:
        The shape of ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If ``output_size`` is shorter than the window, or if x has another number of windows.

    References:
        ``torch.nn.Fold``.

    >>> import torch
    >>> Fold(4, 2)({}, torch.ones(1, 12, 9)).shape
    torch.Size([1, 3, 4, 4])
    """

    output_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    stride: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))

    axes: ClassVar[int] = 2

    def __attrs_post_init__(self) -> None:
        window = _window(self)
        if min(window.places(self._lengths())) < 1:
            rule = f"output_size must be at least {window.least_lengths()} for these windows and padding"
            raise fields_error(self, rule, "output_size")

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        require_floating(self, params, x)
        y = kernels.fold(x, self._lengths(), *_options(self))
        return y, (tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, kernels.unfold(check_gy(self, gy, *cache), *_options(self))

    def complaint(self, x: Tensor) -> str | None:
        if floating_complaint(x):
            return floating_complaint(x)
        block, count = math.prod(each(self.kernel_size, 2)), math.prod(_window(self).places(self._lengths()))
        right = x.dim() in (2, 3) and x.shape[-2] % block == 0 and x.shape[-1] == count
        return None if right else f"x must have the axes (N, channels · {block}, {count}) or (channels · {block}, {count})"

    def _lengths(self) -> Shape:
        return each(self.output_size, 2)
