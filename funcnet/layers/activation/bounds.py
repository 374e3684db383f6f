"""Bounds and roundings, by element, for x (...) of any shape.

Clamp    y = x between min and max                  gx = gy where min ≤ x ≤ max, else 0
Floor    y = ⌊x⌋                                    gx = 0
Ceil     y = ⌈x⌉                                    gx = 0
Round    y = x rounded, halves to even numbers      gx = 0
"""

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.errors import fields_error, number
from funcnet.layers.activation.base import Activation
from funcnet.value import frozen


@frozen
class Clamp(Activation):
    """x bounded to the range from ``min`` to ``max``; beyond them the gradient is 0.

    Args:
        min: The lower bound; ``None`` for none.
        max: The upper bound; ``None`` for none.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``x``.

    Raises:
        ValueError: For no bound, bounds in the wrong order, and an x that is no floating tensor.

    Source:
        ``torch.clamp``.

    >>> Clamp(min=0.5)({}, torch.tensor([0.0, 2.0]))
    tensor([0.5000, 2.0000])
    """

    min: float | None = field(default=None, validator=validators.optional(number()))
    max: float | None = field(default=None, validator=validators.optional(number()))

    def __attrs_post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise fields_error(self, "there must be a bound at least", "min", "max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fields_error(self, "min must be at most max", "min", "max")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.clamp(x, self.min, self.max), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        inside = torch.ones_like(x, dtype=torch.bool) if self.min is None else x >= self.min
        return torch.where(inside if self.max is None else inside & (x <= self.max), gy, 0.0)


@frozen
class Floor(Activation):
    """Largest whole number that is at most x; the gradient is 0.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
        ``torch.floor``.

    >>> Floor()({}, torch.tensor([1.5]))
    tensor([1.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.floor(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


@frozen
class Ceil(Activation):
    """Smallest whole number that is at least x; the gradient is 0.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
        ``torch.ceil``.

    >>> Ceil()({}, torch.tensor([1.5]))
    tensor([2.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.ceil(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


@frozen
class Round(Activation):
    """Nearest whole number, of two the even one; the gradient is 0.

    Shape:
        x (...) → y (...)

    Params:
        None.

    Cache:
        ``y``.

    Raises:
        ValueError: For an x that is no floating tensor.

    Source:
        ``torch.round``.

    >>> Round()({}, torch.tensor([1.5]))
    tensor([2.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.round(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)
