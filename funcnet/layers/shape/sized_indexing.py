"""Indexing with sizes and tensors from x: a tensor, or a tuple whose first tensor is indexed.

GetItem   y = x[index]                                 gx = 0, with gy added at index
Narrow    y = x[start : start + length] along an axis  gx = 0, but gy there

x (...) is of any shape. The other tensors of a tuple are there for their shapes, or as indices, and have the gradient ``None``.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Shape
from funcnet.errors import valid_if, whole_number
from funcnet.layers.shape.sized import Sized
from funcnet.layers.shape.templates import (
    InputShape,
    InputSize,
    InputTensor,
    SizeArithmetic,
    comparable,
    is_size,
    whole_or_size,
)
from funcnet.value import frozen


def _is_part(part: Any) -> bool:
    if isinstance(part, slice):
        ends = part.start, part.stop, part.step
        return all(end is None or (is_size(end, -(2**63)) and not isinstance(end, InputShape)) for end in ends)
    return part is None or part is Ellipsis or isinstance(part, InputTensor) or is_size(part, -(2**63))


@frozen
class GetItem(Sized):
    """x[index], by ints, slices, ``...``, ``None``, sizes of x, and tensors of integers among the inputs.

    ``Index`` is the same for numbers only. An index tensor may name an element several times, whose gradient is then the sum.

    Args:
        index: The parts of the index. ``InputTensor(1)`` is the second tensor of x.

    Shape:
        x (...), or a tuple (x, others ...) → y of the shape of ``x[index]``, (...)

    Params:
        None.

    Cache:
        The shapes of ``x`` and ``y``, an empty tensor of their kind, and the index tensors.

    Raises:
        ValueError: For an index of anything else, and when x has no such elements.

    Source:
        elementary; indices are read as ``torch.Tensor.__getitem__`` reads them.

    >>> GetItem((slice(None), InputTensor(1)))({}, (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2, 0])))
    tensor([[3., 1.]])
    """

    index: tuple[Any, ...] = field(
        validator=valid_if(
            lambda got: isinstance(got, tuple) and all(map(_is_part, got)),
            "a tuple of ints, slices, ..., None, sizes and InputTensor",
        ),
        eq=comparable,
    )

    @property
    def batch_dependent(self) -> bool:
        return bool(self.index) and self.index[0] is not Ellipsis and self.index[0] != slice(None)

    @property
    def template(self) -> Any:
        return self.index

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return x[arguments]

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        gx = gy.new_zeros(shape)
        if not any([isinstance(part, Tensor) for part in arguments]):  # noqa: C419
            gx[arguments] = gy
            return gx
        places = torch.arange(gx.numel(), device=gy.device).reshape(shape)[arguments]
        return gx.reshape(-1).index_add(0, places.reshape(-1), gy.reshape(-1)).reshape(shape)

    def rule(self, arguments: Any) -> str:
        return "x must have these elements"


@frozen
class Narrow(Sized):
    """``length`` entries of x along the axis ``dim``, from ``start``, as ``torch.narrow``.

    Args:
        dim: The axis.
        start: The first entry, from the end where negative.
        length: How many entries.

    Shape:
        x (...), or a tuple (x, others ...) → y (..., length, ...)

    Params:
        None.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their kind.

    Raises:
        ValueError: For fields that are no such numbers, and when x has no such entries.

    Source:
        ``torch.narrow``.

    >>> Narrow(1, 1, 2)({}, torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 3.]])
    """

    dim: int = field(validator=whole_number)
    start: int | InputSize | SizeArithmetic = field(validator=whole_or_size)
    length: int | InputSize | SizeArithmetic = field(validator=whole_or_size)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    @property
    def template(self) -> Any:
        return self.start, self.length

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return torch.narrow(x, self.dim, *arguments)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        start, length = arguments
        n = shape[self.dim]
        before, after = [*shape], [*shape]
        before[self.dim] = start if start >= 0 else start + n
        after[self.dim] = n - before[self.dim] - length
        return torch.cat((gy.new_zeros(before), gy, gy.new_zeros(after)), self.dim)

    def rule(self, arguments: Any) -> str:
        return "x must have the entries start={}, length={} along the axis {}".format(*arguments, self.dim)
