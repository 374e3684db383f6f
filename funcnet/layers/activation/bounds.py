"""Bounds and rounding, elementwise, for x (...) of any shape.

y and gx have the shape of x. Rounding is constant between its jumps, so its gradient is 0.
"""

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.errors import fields_error, number
from funcnet.layers.activation.base import Activation
from funcnet.value import frozen


@frozen
class Clamp(Activation):
    """Clamp every element to the range from ``min`` to ``max``.

        y  = x, but at least min and at most max
        gx = gy where min ≤ x ≤ max, else 0

    Args:
        min: Lower bound; ``None`` for no lower bound.
        max: Upper bound; ``None`` for no upper bound.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If both bounds are ``None``, or if ``min`` is above ``max``.

    References:
        ``torch.clamp``.

    >>> Clamp(min=0.5)({}, torch.tensor([0.0, 2.0]))
    tensor([0.5000, 2.0000])
    """

    min: float | None = field(default=None, validator=validators.optional(number()))
    max: float | None = field(default=None, validator=validators.optional(number()))

    def __attrs_post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise fields_error(self, "at least one bound must be given", "min", "max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fields_error(self, "min must be at most max", "min", "max")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.clamp(x, self.min, self.max), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        inside = torch.ones_like(x, dtype=torch.bool) if self.min is None else x >= self.min
        return torch.where(inside if self.max is None else inside & (x <= self.max), gy, 0.0)


@frozen
class Floor(Activation):
    """Round down to a whole number.

        y  = ⌊x⌋
        gx = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
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
    """Round up to a whole number.

        y  = ⌈x⌉
        gx = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
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
    """Round to the nearest whole number; halves are rounded to the even one.

        y  = x rounded
        gx = 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.round``.

    >>> Round()({}, torch.tensor([0.5, 1.5, 1.6]))
    tensor([0., 2., 2.])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.round(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)
