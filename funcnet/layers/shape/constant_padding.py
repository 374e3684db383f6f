"""Padding of the last axes with a number, and the base class of all padding layers.

With n added elements, l of them in front, x (..., length) becomes y (..., length + n). ``boundary_padding`` and
``circular_padding`` pad with elements of x.
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import came, check_gy, kind_of, require_floating
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import MOST, is_whole_tuple, number, valid_if, value_error
from funcnet.layers.shape.reshaping import Shaped, SingleRule
from funcnet.value import frozen


def _validate_padding(layer: "Pad", attribute: Any, got: Any) -> None:
    count = 2 * layer.axes
    rule = f"a whole number, or a tuple of {count} of them, the last axis first"
    valid_if(lambda _: is_whole_tuple(layer._pads()) and len(layer._pads()) == count, rule, most=MOST)(layer, attribute, got)


@frozen
class Pad(SingleRule):
    """Base of layers that pad the last ``axes`` axes: subclasses define ``pad`` and ``pad_backward``."""

    padding: int | Shape = field(validator=_validate_padding)

    axes: ClassVar[int]
    leading: ClassVar[tuple[float, float]] = (1, 2)  # least and largest number of axes before these: channels, or a batch too

    @abstractmethod
    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        """Return y."""

    @abstractmethod
    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        """Return gx, with the given shape."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        least, most = self.axes + self.leading[0], self.axes + self.leading[1]
        if not least <= require_floating(self, params, x).dim() <= most:
            raise value_error(self, f"x must have {least} or {'more' if math.isinf(most) else most} axes", came(x))
        return self.pad(x, list(self._pads())), (tuple(x.shape), kind_of(x))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        shape, kind = cache
        pads, fixed = list(self._pads()), len(shape) - self.axes
        sums = [pads[2 * i] + pads[2 * i + 1] for i in reversed(range(self.axes))]
        padded = shape[:fixed] + tuple([n + p for n, p in zip(shape[fixed:], sums, strict=True)])
        return params, self.pad_backward(check_gy(self, gy, padded, kind), shape, pads)

    def _pads(self) -> Shape:
        return self.padding if isinstance(self.padding, tuple) else (self.padding,) * 2 * self.axes


@frozen
class ConstantLike(Pad):
    """Base of padding with a number; x can have any number of leading axes."""

    leading = (0, math.inf)
    rule = "the padding must not remove a whole axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return torch.constant_pad_nd(x, pads, self._number())

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return torch.constant_pad_nd(gy, [-n for n in pads])

    def _number(self) -> float:
        return 0.0


@frozen
class ZeroPad1d(ConstantLike):
    """Pad the last axis with zeros.

        y[i]  = x[i - l], or 0 outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after the last axis: a pair, or one number for both. Negative numbers
            remove elements.

    Shape:
        x (..., length) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ZeroPad1d``.

    >>> ZeroPad1d((1, 2))({}, torch.tensor([1.0, 2.0]))
    tensor([0., 1., 2., 0., 0.])
    """

    axes = 1


@frozen
class ZeroPad2d(ConstantLike):
    """Pad the last 2 axes with zeros.

        y[i]  = x[i - l], or 0 outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 4, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (..., height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ZeroPad2d``.

    >>> ZeroPad2d(1)({}, torch.ones(3, 3)).shape
    torch.Size([5, 5])
    """

    axes = 2


@frozen
class ZeroPad3d(ConstantLike):
    """Pad the last 3 axes with zeros.

        y[i]  = x[i - l], or 0 outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 6, or one
            number for all. Negative numbers remove elements.

    Shape:
        x (..., depth, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ZeroPad3d``.

    >>> ZeroPad3d(1)({}, torch.ones(3, 3, 3)).shape
    torch.Size([5, 5, 5])
    """

    axes = 3


@frozen
class ConstantPad1d(ConstantLike):
    """Pad the last axis with ``value``.

        y[i]  = x[i - l], or ``value`` outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after the last axis: a pair, or one number for both. Negative numbers
            remove elements.
        value: The number to pad with.

    Shape:
        x (..., length) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ConstantPad1d``.

    >>> ConstantPad1d((1, 2), 9.0)({}, torch.tensor([1.0, 2.0]))
    tensor([9., 1., 2., 9., 9.])
    """

    value: float = field(validator=number())

    axes = 1

    def _number(self) -> float:
        return self.value


@frozen
class ConstantPad2d(ConstantLike):
    """Pad the last 2 axes with ``value``.

        y[i]  = x[i - l], or ``value`` outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 4, or one
            number for all. Negative numbers remove elements.
        value: The number to pad with.

    Shape:
        x (..., height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ConstantPad2d``.

    >>> ConstantPad2d(1, 9.0)({}, torch.ones(3, 3)).shape
    torch.Size([5, 5])
    """

    value: float = field(validator=number())

    axes = 2

    def _number(self) -> float:
        return self.value


@frozen
class ConstantPad3d(ConstantLike):
    """Pad the last 3 axes with ``value``.

        y[i]  = x[i - l], or ``value`` outside x
        gx[j] = gy[j + l]

    The formulas hold along each padded axis, with l elements added before it.

    Args:
        padding: Numbers of elements to add before and after each padded axis, starting with the last axis: a tuple of 6, or one
            number for all. Negative numbers remove elements.
        value: The number to pad with.

    Shape:
        x (..., depth, height, width) → y with longer axes

    Cache:
        The shape of ``x``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the padding removes a whole axis.

    References:
        ``torch.nn.ConstantPad3d``.

    >>> ConstantPad3d(1, 9.0)({}, torch.ones(3, 3, 3)).shape
    torch.Size([5, 5, 5])
    """

    value: float = field(validator=number())

    axes = 3

    def _number(self) -> float:
        return self.value
