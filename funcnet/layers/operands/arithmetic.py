"""Arithmetic: operations on operands, a tuple of tensors in, one tensor out, with broadcasting.

    Add      y = Σ xᵢ          gxᵢ = gy
    Mul      y = Π xᵢ          gxᵢ = gy ⊙ Π_{j≠i} xⱼ
    Sub      y = a - b         ga = gy,                   gb = -gy
    Div      y = a / b         ga = gy / b,               gb = -gy ⊙ y / b
    Pow      y = aᵇ            ga = gy ⊙ b aᵇ⁻¹,          gb = gy ⊙ y log a
    MatMul   y = a b           ga = gy bᵀ,                gb = aᵀ gy
    Concat   y = (x₁ x₂ ...)   gxᵢ = its part of gy

The operands (...) broadcast to the shape of y; those of MatMul are (..., n, k) and (..., k, m), and those of Concat differ in one
axis. The gradient of an operand that was broadcast is summed over the axes along which it was repeated.
"""

from functools import reduce
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import axis_complaint, came, check_gy, first_complaint, kind_of, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import describe, flag, value_error, whole_number
from funcnet.kernels import operands as kernels
from funcnet.value import frozen

Operands = tuple[Tensor, ...]
Shapes = tuple[Shape, ...]
_Shaped = tuple[Shapes, Shape, Tensor]  # the operands' shapes, that of y, and an empty tensor of its kind


def shapes_of(x: Operands) -> Shapes:
    """Return the shapes of the operands."""
    return tuple([tuple(operand.shape) for operand in x])


def _are_alike(x: tuple[Any, ...]) -> bool:
    """Tell whether x is dense floating tensors of one dtype on one device: of two in 0.4 µs, and by the rules one by one in 1."""
    first = x[0]
    if type(first) is not Tensor or not first.is_floating_point():
        return False
    dtype, device = first.dtype, first.device
    for one in x:
        if type(one) is not Tensor or one.dtype is not dtype or one.device != device:
            return False
        if one.layout is not torch.strided or one.is_nested:
            return False
    return True


@frozen
class Operation(Layer):
    """A layer whose x is a tuple of floating tensors of one dtype that broadcast together."""

    count: ClassVar[int | None] = 2
    """How many operands x has; ``None`` for one or more."""

    contents: ClassVar[str] = "2 tensors"
    """What x holds, in words."""

    def operands(self, params: Params, x: Any) -> Any:
        """Return x, which must be a tuple of dense tensors of one dtype on one device; the kernels would accept others."""
        if not isinstance(x, tuple) or not x or (self.count is not None and len(x) != self.count):
            raise value_error(self, f"x must be a tuple of {self.contents}", x)
        if not params and type(params) is dict and _are_alike(x):
            return x
        dtype, device = getattr(x[0], "dtype", None), getattr(x[0], "device", None)
        for one in x:
            if require_floating(self, params, one).dtype is not dtype:
                raise value_error(self, "the operands must have one dtype", " and ".join([str(operand.dtype) for operand in x]))
            if one.device != device or one.layout is not torch.strided or one.is_nested:
                got = " and ".join([f"{describe(operand)} on {operand.device}" for operand in x])
                raise value_error(self, "the operands must be dense tensors on one device", got)
        return x

    def complaint(self, x: Any) -> str | None:
        try:
            torch.broadcast_shapes(*shapes_of(x))  # type: ignore[no-untyped-call]
        except RuntimeError:
            return "the operands must broadcast together"
        return None


@frozen
class _Variadic(Operation):
    """An operation on one or more operands."""

    count = None
    contents = "one or more tensors"


@frozen
class Add(_Variadic):
    """Sum of the operands, one or more; with ``broadcast=False`` they must have one shape.

    Params   none.
    Cache    the operands' shapes, that of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` is not a tuple of floating tensors that broadcast together.
    Source   elementary.
    """

    broadcast: bool = field(default=True, validator=flag)

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, _Shaped]:
        shapes = shapes_of(self.operands(params, x))
        if not self.broadcast and any([shape != shapes[0] for shape in shapes[1:]]):  # noqa: C419 (an exported size has no hash)
            raise value_error(self, "the operands must have one shape", came(x))
        y = reduce(torch.add, x)
        return y, (shapes, tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: _Shaped, gy: Tensor) -> tuple[Grads, Operands]:
        shapes, of, kind = cache
        gy = check_gy(self, gy, of, kind)
        return params, tuple([kernels.unbroadcast(gy, shape) for shape in shapes])


@frozen
class Sub(Operation):
    """Difference a - b of two operands.

    Params   none.
    Cache    the operands' shapes, that of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` is not a pair of floating tensors that broadcast together.
    Source   elementary.
    """

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, _Shaped]:
        a, b = self.operands(params, x)
        y = a - b
        return y, (shapes_of(x), tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: _Shaped, gy: Tensor) -> tuple[Grads, Operands]:
        (a, b), of, kind = cache
        gy = check_gy(self, gy, of, kind)
        return params, (kernels.unbroadcast(gy, a), -kernels.unbroadcast(gy, b))


@frozen
class Mul(_Variadic):
    """Product of the operands, one or more, element by element; exact where factors are 0, since nothing is divided.

    Params   none.
    Cache    the operands, and the shape of ``y``.
    Raises   ``ValueError`` when ``x`` is not a tuple of floating tensors that broadcast together.
    Source   elementary.
    """

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Operands, Shape]]:
        y = reduce(torch.mul, self.operands(params, x))
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Operands, Shape], gy: Tensor) -> tuple[Grads, Operands]:
        operands, of = cache
        before = accumulate(operands[:-1], mul, initial=check_gy(self, gy, of, operands[0]))
        after = [None, *accumulate(reversed(operands[1:]), mul)][::-1]
        products = [b if a is None else b * a for b, a in zip(before, after, strict=True)]
        return params, tuple(kernels.unbroadcast(g, tuple(x.shape)) for g, x in zip(products, operands, strict=True))


@frozen
class Div(Operation):
    """Quotient a / b of two operands.

    Params   none.
    Cache    ``y``, ``b`` and the shape of ``a``.
    Raises   ``ValueError`` when ``x`` is not a pair of floating tensors that broadcast together.
    Source   elementary.
    """

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, tuple[int, ...]]]:
        a, b = self.operands(params, x)
        y = a / b
        return y, (y, b, tuple(a.shape))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Operands]:
        y, b, shape = cache
        ga = check_gy(self, gy, y.shape, y) / b
        return params, (kernels.unbroadcast(ga, shape), -kernels.unbroadcast(ga * y, tuple(b.shape)))


@frozen
class Pow(Operation):
    """Power aᵇ of two operands, element by element.

    Where a = 0 the gradient of b is 0 for b ≥ 0, and where b = 0 that of a is 0, as torch has them.

    Params   none.
    Cache    the operands and ``y``.
    Raises   ``ValueError`` when ``x`` is not a pair of floating tensors that broadcast together.
    Source   elementary; its gradients at the kinks are those of ``torch.pow``.
    """

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        a, b = self.operands(params, x)
        y = torch.pow(a, b)
        return y, (a, b, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Grads, Operands]:
        a, b, y = cache
        gy = check_gy(self, gy, y.shape, y)
        ga = gy * torch.where(b == 0, 0.0, b * torch.pow(a, b - 1))
        gb = gy * torch.where((a == 0) & (b >= 0), 0.0, y * torch.log(a))
        return params, (kernels.unbroadcast(ga, tuple(a.shape)), kernels.unbroadcast(gb, tuple(b.shape)))


@frozen
class MatMul(Operation):
    """Matrix product of two operands with ``torch.matmul``'s rules: axes before the last two are batch, and broadcast.

    Params   none.
    Cache    the operands, and the shape of ``y``.
    Raises   ``ValueError`` when ``x`` is not a pair of floating tensors with fitting shapes.
    Source   elementary, by the rules of ``torch.matmul``.
    """

    batch_dependent = True

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Operands, Shape]]:
        y = torch.matmul(*self.operands(params, x))
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Operands, Shape], gy: Tensor) -> tuple[Grads, Operands]:
        (a, b), of = cache
        gy = check_gy(self, gy, of, a)
        rows, columns = a.unsqueeze(0) if a.dim() == 1 else a, b.unsqueeze(1) if b.dim() == 1 else b
        gy = gy.unsqueeze(-2) if a.dim() == 1 and b.dim() > 1 else gy.unsqueeze(-1) if b.dim() == 1 else gy
        gy = gy.unsqueeze(-2) if a.dim() == 1 and b.dim() == 1 else gy
        ga = kernels.unbroadcast(torch.matmul(gy, columns.mT), tuple(rows.shape))
        gb = kernels.unbroadcast(torch.matmul(rows.mT, gy), tuple(columns.shape))
        return params, (ga.reshape(a.shape), gb.reshape(b.shape))

    def complaint(self, x: Operands) -> str:
        return "the last axis of a must be the last but one of b, and those before must broadcast"


@frozen
class Concat(_Variadic):
    """Join the operands along the axis ``dim``, by default the last: features beside features.

    Params   none.
    Cache    the operands' sizes along ``dim``, the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` is not a tuple of floating tensors that agree in all other axes.
    Source   elementary, as ``torch.cat``.
    """

    dim: int = field(default=-1, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Operands, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Shape, Tensor]]:
        y = torch.cat(self.operands(params, x), self.dim)
        return y, (tuple([operand.shape[self.dim] for operand in x]), tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: tuple[Shape, Shape, Tensor], gy: Tensor) -> tuple[Grads, Operands]:
        sizes, of, kind = cache
        return params, torch.split(check_gy(self, gy, of, kind), list(sizes), self.dim)

    def complaint(self, x: Operands) -> str | None:
        axes = [axis_complaint(operand, self.dim) for operand in x]
        return first_complaint(*axes, f"the operands must agree in every axis but {self.dim}")
