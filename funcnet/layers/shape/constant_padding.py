"""Padding: x with more elements around it along its last axes, by a rule that says where they come from.

    ZeroPad, ConstantPad   y[i] = x[i - l], or a number where there is no such element      gx[j] = gy[j + l]

l is the padding before x, and with n more elements along an axis x (..., length) becomes y (..., length + n). What takes the new
elements from x itself is in ``borders``.
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


def _padding(layer: "Pad", attribute: Any, got: Any) -> None:
    count = 2 * layer.axes
    rule = f"a whole number, or a tuple of {count} of them, the last axis first"
    valid_if(lambda _: is_whole_tuple(layer._pads()) and len(layer._pads()) == count, rule, most=MOST)(layer, attribute, got)


@frozen
class Pad(SingleRule):
    """Padding of the last ``axes`` axes by one number, or by one before and one after each of them, the last axis first.

    A negative number removes elements.
    """

    padding: int | Shape = field(validator=_padding)

    axes: ClassVar[int]
    more: ClassVar[tuple[float, float]] = (1, 2)  # axes that x may have before these: channels, and a batch

    @abstractmethod
    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        """Return y."""

    @abstractmethod
    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        """Return gx, of the shape of x."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        least, most = self.axes + self.more[0], self.axes + self.more[1]
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
    """Padding by a number, of any axes."""

    more = (0, math.inf)
    rule = "the padding must leave something of each axis"

    def pad(self, x: Tensor, pads: list[int]) -> Tensor:
        return torch.constant_pad_nd(x, pads, self._number())

    def pad_backward(self, gy: Tensor, shape: Shape, pads: list[int]) -> Tensor:
        return torch.constant_pad_nd(gy, [-n for n in pads])

    def _number(self) -> float:
        return 0.0


@frozen
class ZeroPad1d(ConstantLike):
    """Zeros around x, along the last axis.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 2, one that leaves nothing of an axis, and
             an ``x`` with no axis.
    Source   ``torch.nn.ZeroPad1d``'s formula.
    """

    axes = 1


@frozen
class ZeroPad2d(ConstantLike):
    """Zeros around x, along the last 2 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 4, one that leaves nothing of an axis, and
             an ``x`` with less than 2 axes.
    Source   ``torch.nn.ZeroPad2d``'s formula.
    """

    axes = 2


@frozen
class ZeroPad3d(ConstantLike):
    """Zeros around x, along the last 3 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 6, one that leaves nothing of an axis, and
             an ``x`` with less than 3 axes.
    Source   ``torch.nn.ZeroPad3d``'s formula.
    """

    axes = 3


@frozen
class ConstantPad1d(ConstantLike):
    """The number ``value`` around x, along the last axis.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 2, one that leaves nothing of an axis, and
             an ``x`` with no axis.
    Source   ``torch.nn.ConstantPad1d``'s formula.
    """

    value: float = field(validator=number())

    axes = 1

    def _number(self) -> float:
        return self.value


@frozen
class ConstantPad2d(ConstantLike):
    """The number ``value`` around x, along the last 2 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 4, one that leaves nothing of an axis, and
             an ``x`` with less than 2 axes.
    Source   ``torch.nn.ConstantPad2d``'s formula.
    """

    value: float = field(validator=number())

    axes = 2

    def _number(self) -> float:
        return self.value


@frozen
class ConstantPad3d(ConstantLike):
    """The number ``value`` around x, along the last 3 axes.

    Params   none.
    Cache    the shape of ``x``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a padding that is neither a whole number nor a tuple of 6, one that leaves nothing of an axis, and
             an ``x`` with less than 3 axes.
    Source   ``torch.nn.ConstantPad3d``'s formula.
    """

    value: float = field(validator=number())

    axes = 3

    def _number(self) -> float:
        return self.value
