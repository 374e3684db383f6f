"""Elementwise choices between operands: x is a tuple of tensors that broadcast together, y is one tensor.

The gradient of an operand is summed over the axes along which it was broadcast.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_dense, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import is_number, valid_if
from funcnet.kernels.operands import unbroadcast
from funcnet.layers.operands.arithmetic import Operands, Operation
from funcnet.value import frozen

_number = valid_if(
    lambda got: got is None or is_number(got) or (isinstance(got, float) and math.isinf(got)),
    "a number, finite or infinite, or None",
)


@frozen
class Where(Layer):
    """Choose a where a condition holds, else b. Either can be a number in a field instead of a tensor in x.

        y  = a where the condition holds, else b
        ga = gy where it holds, else 0
        gb = gy where it does not hold, else 0

    Args:
        a: The number where the condition holds; ``None`` for a tensor in x.
        b: The number elsewhere; ``None`` for a tensor in x.

    Shape:
        (condition, a, b), tensors (...) that broadcast, a bool condition and floating a and b → y (...). x has no entry for a or
        b if it is a number.

    Cache:
        The condition, not copied, the shapes of a, b and ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If x does not hold a bool condition and floating tensors of one dtype, or both a and b are numbers.

    References:
        ``torch.where``.

    >>> Where(b=0.0)({}, (torch.tensor([True, False]), torch.tensor([1.0, 2.0])))
    tensor([1., 0.])
    """

    a: float | None = field(default=None, validator=_number)
    b: float | None = field(default=None, validator=_number)

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        condition, *rest = x
        tensors = iter(rest)
        a, b = (next(tensors) if number is None else number for number in (self.a, self.b))
        y = torch.where(condition, a, b)
        return y.to(rest[0].dtype), (condition, [tuple(one.shape) for one in rest], tuple(y.shape), kind_of(rest[0]))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Tensor | None, ...]]:
        condition, shapes, of, kind = cache
        gy = check_gy(self, gy, of, kind)
        parts = [torch.where(condition, gy, 0.0)] if self.a is None else []
        parts += [torch.where(condition, 0.0, gy)] if self.b is None else []
        return params, (None, *[unbroadcast(g, shape) for g, shape in zip(parts, shapes, strict=True)])

    def complaint(self, x: Any) -> str | None:
        count = 1 + (self.a is None) + (self.b is None)
        right = isinstance(x, tuple) and len(x) == count > 1 and all([isinstance(one, Tensor) for one in x])  # noqa: C419
        right = right and x[0].dtype is torch.bool and all([one.dtype is x[1].dtype for one in x[1:]])  # noqa: C419
        if not right or not x[1].is_floating_point():
            return f"x must be a tuple of {count} tensors, 2 or more: a bool condition, and floating tensors of one dtype"
        return "the tensors must broadcast together" if self._cannot_broadcast(x) else None

    def _cannot_broadcast(self, x: tuple[Tensor, ...]) -> bool:
        try:
            torch.broadcast_shapes(*[one.shape for one in x])  # type: ignore[no-untyped-call]
        except RuntimeError:
            return True
        return False


class _Extreme(Operation):
    """Base of ``Maximum`` and ``Minimum``: ``choose`` computes y, and ``first(a, b)`` returns where y is a and not b."""

    __slots__ = ()

    choose: ClassVar[Callable[[Tensor, Tensor], Tensor]]
    first: ClassVar[Callable[[Tensor, Tensor], Tensor]]

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Operands, tuple[int, ...]]]:
        a, b = self.operands(params, x)
        y = type(self).choose(a, b)
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Operands, tuple[int, ...]], gy: Tensor) -> tuple[Grads, Operands]:
        (a, b), of = cache
        gy = check_gy(self, gy, of, a)
        ga = torch.where(type(self).first(a, b), gy, torch.where(a == b, gy * 0.5, 0.0))
        gb = torch.where(type(self).first(b, a), gy, torch.where(a == b, gy * 0.5, 0.0))
        return params, (unbroadcast(ga, tuple(a.shape)), unbroadcast(gb, tuple(b.shape)))


@frozen
class Maximum(_Extreme):
    """The larger of two operands, elementwise; equal elements share the gradient.

        y  = max(a, b)
        ga = gy where a > b, gy / 2 where a = b, else 0        gb likewise, with a and b swapped

    Shape:
        (a, b), tensors (...) that broadcast → y (...)

    Cache:
        The operands, not copied, and the shape of ``y``.

    Raises:
        ValueError: If the operands do not broadcast together.

    References:
        ``torch.maximum``.

    >>> Maximum()({}, (torch.tensor([1.0, 4.0]), torch.tensor([2.0])))
    tensor([2., 4.])
    """

    choose = torch.maximum
    first = torch.gt


@frozen
class Minimum(_Extreme):
    """The smaller of two operands, elementwise; equal elements share the gradient.

        y  = min(a, b)
        ga = gy where a < b, gy / 2 where a = b, else 0        gb likewise, with a and b swapped

    Shape:
        (a, b), tensors (...) that broadcast → y (...)

    Cache:
        The operands, not copied, and the shape of ``y``.

    Raises:
        ValueError: If the operands do not broadcast together.

    References:
        ``torch.minimum``.

    >>> Minimum()({}, (torch.tensor([1.0, 4.0]), torch.tensor([2.0])))
    tensor([1., 2.])
    """

    choose = torch.minimum
    first = torch.lt


@frozen
class TypeAs(Layer):
    """Convert the first tensor of a pair to the dtype of the second, for example a mask to use as a factor.

        y  = a in the dtype of b
        ga = gy in the dtype of a        gb is ``None``

    Shape:
        (a (...), b (...)), of any shapes → y (...), the shape of a

    Cache:
        The shape of a, and empty tensors of the dtypes of a and ``y``.

    Raises:
        ValueError: If the second tensor is not floating, or the first is complex.

    References:
        ``torch.Tensor.type_as``.

    >>> TypeAs()({}, (torch.tensor([True, False]), torch.tensor(0.5)))
    tensor([1., 0.])
    """

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        y = require_dense(self, x[0]).to(x[1].dtype)
        return y, (tuple(y.shape), kind_of(x[0]), kind_of(y))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Tensor | None, None]]:
        shape, kind, like = cache
        return params, (check_gy(self, gy, shape, like).to(kind.dtype) if kind.is_floating_point() else None, None)

    def complaint(self, x: Any) -> str | None:
        right = isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], Tensor) and isinstance(x[1], Tensor)
        return (
            None
            if right and x[1].is_floating_point() and not x[0].is_complex()
            else "x must be a pair of tensors, the second floating"
        )
