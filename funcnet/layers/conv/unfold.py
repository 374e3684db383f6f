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

from funcnet.checks import check_gy, explain_error, require_no_params
from funcnet.contract import Params, Rng, Shape
from funcnet.errors import value_error
from funcnet.kernels import conv as kernels
from funcnet.layers.conv.window import Sizes, Window, Windowed, each, hashable, require_axes, sizes
from funcnet.value import frozen


def _window(layer: "Unfold | Fold") -> Window:
    kernel, stride, dilation, padding = (
        each(option, 2) for option in (layer.kernel_size, layer.stride, layer.dilation, layer.padding)
    )
    return Window(kernel, stride, dilation, padding, padding)


def _how(layer: "Unfold | Fold") -> tuple[Shape, Shape, Shape, Shape]:
    """Return the options in the order of the kernels."""
    window = _window(layer)
    return window.kernel, window.dilation, window.before, window.stride


@frozen
class Unfold(Windowed):
    """Windows of (N, channels, height, width), or without N, as columns: (N, channels · window, windows); as ``torch.nn.Unfold``.

    Each option is one number for both axes, or a tuple of two. A convolution is a product of its weight with these columns.

    Params   none.
    Cache    the shapes of ``x`` and ``y``.
    Raises   ``ValueError`` for sizes below 1, an ``x`` that is not floating, or has other axes, or is shorter than the window,
             and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.Unfold``'s formula.
    """

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    dilation: Sizes = field(default=1, converter=hashable, validator=sizes(1))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    stride: Sizes = field(default=1, converter=hashable, validator=sizes(1))

    axes: ClassVar[int] = 2

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Shape]]:
        require_axes(self, params, x)
        try:
            y = kernels.unfold(x, *_how(self))
        except Exception as error:
            raise explain_error(self, params, x, error) from None
        return y, (tuple(x.shape[-2:]), tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Shape, Shape], gy: Tensor) -> tuple[Params, Tensor]:
        lengths, shape = cache
        return params, kernels.fold(check_gy(self, gy, shape), lengths, *_how(self))

    def complaint(self, x: Tensor) -> str | None:
        window = _window(self)
        short = min(window.places(tuple(x.shape[-2:]))) < 1
        return f"x with its padding must be as long as the window's reach, {window.reach()}" if short else None


@frozen
class Fold(Windowed):
    """Columns (N, channels · window, windows), or without N, added into (N, channels, *output_size); as ``torch.nn.Fold``.

    The transpose of ``Unfold``, not its inverse: elements that several windows have are summed.

    Params   none.
    Cache    the shape of ``y``.
    Raises   ``ValueError`` for sizes below 1, an ``output_size`` shorter than the window, an ``x`` that is not floating, or has
             other axes than these, and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.Fold``'s formula.
    """

    output_size: Sizes = field(converter=hashable, validator=sizes(1))
    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    dilation: Sizes = field(default=1, converter=hashable, validator=sizes(1))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    stride: Sizes = field(default=1, converter=hashable, validator=sizes(1))

    axes: ClassVar[int] = 2

    def __attrs_post_init__(self) -> None:
        window = _window(self)
        if min(window.places(self._lengths())) < 1:
            rule = f"output_size with its padding must be as long as the window's reach, {window.reach()}"
            raise value_error("Fold", rule, repr(self.output_size))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shape]:
        require_no_params(self, params)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise value_error(self, "x must be a floating tensor", x)
        block, count = math.prod(each(self.kernel_size, 2)), math.prod(_window(self).places(self._lengths()))
        if x.dim() not in (2, 3) or x.shape[-2] % block or x.shape[-1] != count:
            rule = f"x must have the axes (N, channels · {block}, {count}) or (channels · {block}, {count})"
            raise value_error(self, rule, f"x of shape {tuple(x.shape)}")
        y = kernels.fold(x, self._lengths(), *_how(self))
        return y, tuple(y.shape)

    def vjp(self, params: Params, cache: Shape, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.unfold(check_gy(self, gy, cache), *_how(self))

    def _lengths(self) -> Shape:
        return each(self.output_size, 2)
