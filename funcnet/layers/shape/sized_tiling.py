"""Tiling: copies of x next to each other; their numbers can depend on the shapes of the inputs.

x is a tensor (...) of any shape, or a tuple of tensors, of which the first is copied. The others have the gradient ``None``.
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
    """Tile x along its axes, and along new leading axes.

        y[i]  = x[i mod n]
        gx[j] = Σ gy[i] over all i with i mod n = j          along each axis, of size n

    Args:
        repeats: The number of copies along each axis of y: numbers, and expressions of the shapes of x.

    Shape:
        x (...), or a tuple (x, others ...) → y (...), each size multiplied by its number of copies

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If there are fewer repeats than axes.

    References:
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
        return f"x must have at most {len(arguments)} axes, the number of repeats"
