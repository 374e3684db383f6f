"""Tuples of tensors: pick an entry, join tensors along an axis, or split a tensor into a tuple.

The operands and x (...) have any shape.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axis_complaint, check_gy, check_gys, first_complaint, kind_of, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import whole_number
from funcnet.layers.operands.arithmetic import Operands, Operation, VariadicOperation
from funcnet.layers.shape.indexing import Parts
from funcnet.value import frozen


@frozen
class Pick(Layer):
    """Return one entry of a tuple. The others get the gradient ``None``, which costs nothing; ``Select`` gives them zeros.

        y  = x[index]
        gx = (None, ..., gy, ..., None)

    Args:
        index: The position of the entry, from the end if negative.

    Shape:
        x (x₀, x₁, ...), a tuple of tensors (...) or trees → y = x[index]

    Cache:
        The number of entries, and ``y``, not copied.

    Raises:
        ValueError: If x is not a tuple with this entry.

    >>> Pick(1)({}, (torch.zeros(2), torch.ones(3)))
    tensor([1., 1., 1.])
    """

    index: int = field(validator=whole_number)

    def apply(self, params: Params, x: tuple[Any, ...], rng: Rng = None) -> tuple[Any, tuple[int, Any]]:
        require_no_params(self, params)
        if not isinstance(x, tuple) or not -len(x) <= self.index < len(x):
            raise Misfit
        y = x[self.index]
        return y, (len(x), y)

    def vjp(self, params: Params, cache: tuple[int, Any], gy: Any) -> tuple[Grads, Any]:
        count, y = cache
        at = self.index % count
        gx = None if gy is None else check_gys(self, gy, y)
        return params, tuple([gx if i == at else None for i in range(count)])

    def complaint(self, x: Any) -> str | None:
        return f"x must be a tuple with an entry {self.index}"


@frozen
class Stack(Operation):
    """Stack operands of the same shape along a new axis.

        y   = (x₁ x₂ ...) along the new axis
        gxᵢ = gy[i] along that axis

    Args:
        dim: The position of the new axis in y.

    Shape:
        (x₁, x₂, ...), each (...) → y (..., operands, ...)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the operands differ in shape, or have too few axes.

    References:
        ``torch.stack``.

    >>> Stack(-1)({}, (torch.zeros(2), torch.ones(2)))
    tensor([[0., 1.],
            [0., 1.]])
    """

    count = None
    contents = "one or more tensors"

    dim: int = field(default=0, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, tuple[Shape, Tensor]]:
        y = torch.stack(self.operands(params, x), self.dim)
        return y, (tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: tuple[Shape, Tensor], gy: Tensor) -> tuple[Grads, tuple[Tensor, ...]]:
        return params, check_gy(self, gy, *cache).unbind(self.dim)

    def complaint(self, x: tuple[Tensor, ...]) -> str | None:
        return f"the operands must have the same shape, with room for an axis {self.dim}"


@frozen
class Unbind(Parts):
    """Split x into its slices along the axis ``dim``, which is removed.

        yᵢ = x[i] along the axis
        gx = (gy₁ gy₂ ...) stacked along the axis

    Args:
        dim: The axis.

    Shape:
        x (..., n, ...) → (y₁, ..., yₙ), each (...)

    Cache:
        The shapes of the parts, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.unbind``.

    >>> Unbind(1)({}, torch.tensor([[1.0, 2.0]]))
    (tensor([1.]), tensor([2.]))
    """

    dim: int = field(default=0, validator=whole_number)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.unbind(x, self.dim)

    def join(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, self.dim)


@frozen
class Concat(VariadicOperation):
    """Join the operands along an existing axis, by default the last: features next to features.

        y   = (x₁ x₂ ...) along the axis
        gxᵢ = its part of gy

    Args:
        dim: The axis.

    Shape:
        (x₁, x₂, ...), each (..., nᵢ, ...) → y (..., Σ nᵢ, ...)

    Cache:
        The sizes of the operands along the axis, the shape of ``y``, and an empty tensor of its dtype.

    Raises:
        ValueError: If the operands differ in the size of another axis.

    References:
        ``torch.cat``.

    >>> Concat()({}, (torch.tensor([1.0, 2.0]), torch.tensor([3.0])))
    tensor([1., 2., 3.])
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
        return first_complaint(*axes, f"the operands must have the same size along every axis except {self.dim}")
