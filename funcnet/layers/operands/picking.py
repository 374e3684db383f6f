"""Tuples of tensors: one entry, and tensors joined along a new axis or taken apart along one.

Pick     y = x[index]                                  gx = (None, ..., gy, ..., None)
Stack    y = (x₁ x₂ ...) along a new axis              gxᵢ = gy at i of that axis
Unbind   yᵢ = x at i of an axis, which is removed      gx = (gy₁ gy₂ ...) stacked along it

The operands and x (...) are of any shape.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, check_gys, kind_of, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import whole_number
from funcnet.layers.operands.arithmetic import Operation
from funcnet.layers.shape.indexing import Parts
from funcnet.value import frozen


@frozen
class Pick(Layer):
    """One entry of a tuple; the others have the gradient ``None``, which costs nothing, where ``Select`` makes zeros.

    Args:
        index: The number of the entry, from the end where negative.

    Shape:
        x (x₀, x₁, ...), a tuple of tensors (...) or trees → y = x[index]

    Params:
        None.

    Cache:
        The number of entries, and y, not copied.

    Raises:
        ValueError: For an x that is no tuple, or has no such entry.

    Source:
        elementary.

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
    """Join the operands, which have one shape, along a new axis ``dim``, as ``torch.stack``.

    Args:
        dim: The place of the new axis in y.

    Shape:
        x, a tuple of one or more (...) → y (..., operands, ...)

    Params:
        None.

    Cache:
        The shape of ``y``, and an empty tensor of its kind.

    Raises:
        ValueError: For operands that are no floating tensors of one shape, or have too few axes.

    Source:
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
        return f"the operands must have one shape, with room for an axis {self.dim}"


@frozen
class Unbind(Parts):
    """A tuple of x at each place of the axis ``dim``, which is removed, as ``torch.unbind``.

    Args:
        dim: The axis.

    Shape:
        x (..., n, ...) → y, a tuple of n (...)

    Params:
        None.

    Cache:
        The shapes of the parts, and an empty tensor of their kind.

    Raises:
        ValueError: When x has no axis ``dim``.

    Source:
        ``torch.unbind``.

    >>> Unbind(1)({}, torch.tensor([[1.0, 2.0]]))
    (tensor([1.]), tensor([2.]))
    """

    dim: int = field(default=0, validator=whole_number)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.unbind(x, self.dim)

    def join(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, self.dim)
