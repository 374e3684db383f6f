"""Copies of x side by side, as many as numbers or shapes say; x is a tensor, or a tuple whose first tensor is copied.

Tile   y = x, ``repeats`` times along each axis      gx = Σ gy, over the copies

x (...) is of any shape. The other tensors of a tuple have the gradient ``None``.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Shape
from funcnet.layers.shape.sized import Sized
from funcnet.layers.shape.templates import InputShape, InputSize, SizeArithmetic, sizes
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class Tile(Sized):
    """Copies of x along its axes, and along new ones in front, as ``torch.Tensor.repeat``.

    Args:
        repeats: The number of copies along each axis of y: numbers, and expressions of the shapes of x.

    Shape:
        x (...), or a tuple (x, others ...) → y (...), each axis times its number

    Params:
        None.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their kind.

    Raises:
        ValueError: For repeats that are no such numbers, and fewer than x has axes.

    Source:
        ``torch.Tensor.repeat``.

    >>> import torch
    >>> Tile((2, 1))({}, torch.tensor([1.0, 2.0]))
    tensor([[1., 2.],
            [1., 2.]])
    """

    repeats: tuple[int | InputSize | InputShape | SizeArithmetic, ...] = field(validator=sizes)

    @property
    def batch_dependent(self) -> bool:
        return not self.repeats or self.repeats[0] != 1

    @property
    def template(self) -> Any:
        return self.repeats

    def forward(self, x: Tensor, arguments: Any) -> Tensor:
        return x.repeat(arguments)

    def backward(self, gy: Tensor, shape: Shape, arguments: Any) -> Tensor:
        full = (*[1] * (len(arguments) - len(shape)), *shape)
        pairs = [n for pair in zip(arguments, full, strict=True) for n in pair]
        copies = in_single(gy).reshape(pairs)
        return rounded(copies.sum([*range(0, len(pairs), 2)]), gy).reshape(shape) if pairs else gy

    def rule(self, arguments: Any) -> str:
        return f"x must have at most as many axes as there are repeats, {len(arguments)}"
