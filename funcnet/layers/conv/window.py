"""Sliding windows: their options, one number for all axes or a tuple with one for each, and the number of windows.

    windows = ⌊(length + before + after - d (k - 1) - 1) / s⌋ + 1        k = kernel, d = dilation, s = stride

The gradient of y must have the shape of y: not all kernels check this, and some would read beyond its end.
"""

import math
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from funcnet.checks import Misfit, floating_complaint, require_floating
from funcnet.contract import Layer, Params, Shape
from funcnet.value import frozen

Sizes = int | tuple[int, ...]
"""A whole number for all axes of a window, or a tuple with one for each axis."""

_NAMES = {1: "length", 2: "height, width", 3: "depth, height, width"}


@frozen
class Windowed(Layer):
    """Base of layers that slide windows along the ``axes`` axes after the channels."""

    axes: ClassVar[int]

    @property
    def least_lengths(self) -> Shape:
        """The least lengths of x along these axes for which y is not empty."""
        return (1,) * self.axes

    def complaint(self, x: Tensor) -> str | None:
        rule = axes_complaint(x, self.axes) or super().complaint(x)
        short = not rule and any(n < least for n, least in zip(x.shape[-self.axes :], self.least_lengths, strict=True))
        return f"x must be at least {self.least_lengths} long for these windows and padding" if short else rule


def hashable(value: Any) -> Any:
    """Convert a list to a tuple, which a field can hold."""
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple)) else value


def each(value: Any, axes: int) -> tuple[Any, ...]:
    """Return one entry for each axis."""
    return value if isinstance(value, tuple) else (value,) * axes


def kernel_fans(inputs: int, outputs: int, groups: int, kernel: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out: how many elements of x one of y depends on, and the reverse, inside x and for stride 1."""
    return inputs // groups * math.prod(kernel), outputs // groups * math.prod(kernel)


class Window(NamedTuple):
    """A window along each axis, with a tuple of numbers for each option; ``before`` and ``after`` are the padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def reach(self) -> tuple[int, ...]:
        """Return the number of elements that a window spans."""
        return tuple([d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)])

    def least_lengths(self) -> tuple[int, ...]:
        """Return the least length of x along each axis, without padding, that fits one window; at least 1."""
        return tuple([max(n - b - a, 1) for n, b, a in zip(self.reach(), self.before, self.after, strict=True)])

    def places(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Return the number of windows along each axis."""
        padding = zip(lengths, self.before, self.after, strict=True)
        padded = [length + before + after for length, before, after in padding]
        return tuple([(n - r) // s + 1 for n, r, s in zip(padded, self.reach(), self.stride, strict=True)])


def axes_complaint(x: Any, axes: int) -> str | None:
    """Complain about anything but a floating tensor with channels, ``axes`` axes after them, and optionally a batch axis."""
    if floating_complaint(x) or x.dim() - axes in (1, 2):
        return floating_complaint(x)
    return f"x must have the axes (N, channels, {_NAMES[axes]}) or (channels, {_NAMES[axes]})"


def require_axes(layer: Windowed, params: Params, x: Any) -> Tensor:
    """Return x, for a layer without params; raise if x is not a floating tensor with these axes, or params are not empty."""
    if require_floating(layer, params, x).dim() - layer.axes not in (1, 2):
        raise Misfit
    return x  # type: ignore[no-any-return]  # it is a tensor
