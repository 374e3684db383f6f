"""Folding: the windows of an image as columns, and columns added back into an image.

    Unfold   y[c K + k, t] = x[c, s t + d k - p]                        gx = Fold of gy
    Fold     y[c, i] = Σ_{k, t: s t + d k - p = i} x[c K + k, t]        gx = Unfold of gy

with t, k, i a pair of numbers, one for height and one for width, which the axes of columns have flattened; s = stride,
d = dilation, p = padding, K elements in a window, and x zero outside its range.
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
    """Windows of (N, channels, height, width), or without N, as columns: (N, channels · window, windows); as ``torch.nn.Unfold``.

    Each option is one number for both axes, or a tuple of two. A convolution is a product of its weight with these columns.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for sizes below 1, an ``x`` that is not floating, or has other axes, or is shorter than the window,
             and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.Unfold``'s formula.
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
    """Columns (N, channels · window, windows), or without N, added into (N, channels, *output_size); as ``torch.nn.Fold``.

    The transpose of ``Unfold``, not its inverse: elements that several windows have are summed.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for sizes below 1, an ``output_size`` shorter than the window, an ``x`` that is not floating, or has
             other axes than these, and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.Fold``'s formula.
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
