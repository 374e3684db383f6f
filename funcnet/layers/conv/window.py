"""Windows that slide along axes: their options, one number for all axes or a tuple with one for each, and how often they fit.

places = ⌊(length + before + after - d (k - 1) - 1) / s⌋ + 1        k = kernel, d = dilation, s = stride

The gradient of y must have the shape of y, which kernels for windows do not all check, and read beyond its end.
"""

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from funcnet.checks import require_no_params
from funcnet.contract import Layer, Params
from funcnet.errors import Validator, is_whole, value_error
from funcnet.value import frozen

Sizes = int | tuple[int, ...]

NAMES = {1: "length", 2: "height, width", 3: "depth, height, width"}
ORDINALS = {1: "one", 2: "two", 3: "three"}
"""Which axis from the end the channels are: the last but one, two or three."""


@frozen
class Windowed(Layer):
    """A layer over ``axes`` axes behind the channels."""

    axes: ClassVar[int]


def hashable(value: Any) -> Any:
    """Convert a list to the tuple that a field can hold."""
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple)) else value


def each(value: Any, axes: int) -> tuple[Any, ...]:
    """Return one entry for each axis."""
    return value if isinstance(value, tuple) else (value,) * axes


def sizes(at_least: int, *, optional: bool = False) -> Validator:
    """Make a validator for a whole number with a lower bound, or a tuple with one for each axis; ``None`` where ``optional``."""

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if got is None and optional:
            return
        entries = each(got, value.axes)
        if len(entries) != value.axes or not all(is_whole(n) and n >= at_least for n in entries):
            rule = f"{attribute.name} must be a whole number of at least {at_least}"
            more = f", or a tuple of {value.axes} of them, one for each axis" if isinstance(got, tuple) else ""
            raise value_error(type(value).__name__, rule + more, repr(got))

    return validate


class Window(NamedTuple):
    """What a window is along each axis, with a tuple of numbers for each; ``before`` and ``after`` are the padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def reach(self) -> tuple[int, ...]:
        """Return how many elements a window spans."""
        return tuple([d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)])

    def places(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many windows there are along each axis."""
        padding = zip(lengths, self.before, self.after, strict=True)
        padded = [length + before + after for length, before, after in padding]
        return tuple([(n - r) // s + 1 for n, r, s in zip(padded, self.reach(), self.stride, strict=True)])


def axes_complaint(x: Any, axes: int) -> str | None:
    """Return the rule that is broken by an x that is no floating tensor, or has other axes."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return "x must be a floating tensor"
    if x.dim() not in (axes + 1, axes + 2):
        return f"x must have the axes (N, channels, {NAMES[axes]}) or (channels, {NAMES[axes]})"
    return None


def require_axes(layer: Windowed, params: Params, x: Any) -> Tensor:
    """Return x, which must be a floating tensor with the layer's axes, as it is, for a layer without params."""
    require_no_params(layer, params)
    rule = axes_complaint(x, layer.axes)
    if rule:
        raise value_error(layer, rule, f"x of shape {tuple(x.shape)}" if "axes" in rule else x)
    return x  # type: ignore[no-any-return]  # it is a tensor, or there is a rule that it breaks
