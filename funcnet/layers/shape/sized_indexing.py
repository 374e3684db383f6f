"""Indexing with sizes and tensors among the inputs.

x is a tensor (...) of any shape, or a tuple of tensors, of which the first is indexed. The others provide shapes or indices, and
have the gradient ``None``.
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
    """Index x with ints, slices, ``...``, ``None``, sizes of x, and integer tensors among the inputs.

        y  = x[index]
        gx = gy added at index, 0 elsewhere

    ``Index`` takes only constants. If an index tensor names an element several times, the gradients are added.

    Args:
        index: The parts of the index. ``InputTensor(1)`` is the second tensor of x.

    Shape:
        x (...), or a tuple (x, others ...) → y (...), with the shape of ``x[index]``

    Cache:
        The shapes of ``x`` and ``y``, an empty tensor of their dtype, and the index tensors.

    Raises:
        ValueError: If x does not have these elements.

    References:
        ``torch.Tensor.__getitem__``.

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
    """Take ``length`` entries of x along the axis ``dim``, from ``start``.

        y  = x[start : start + length] along the axis
        gx = gy there, 0 elsewhere

    Args:
        dim: The axis.
        start: The first entry, from the end if negative.
        length: Number of entries.

    Shape:
        x (...), or a tuple (x, others ...) → y (..., length, ...)

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x does not have these entries.

    References:
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
