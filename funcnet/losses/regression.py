"""Regression losses of the difference d = y - t; y and t (...) have the same shape.

    MSE   ℓ = d²      ∂ℓ/∂y = 2 d
    L1    ℓ = |d|     ∂ℓ/∂y = sign d     sign 0 = 0
    L2    ℓ = ½ d²    ∂ℓ/∂y = d

and ∂ℓ/∂t = -∂ℓ/∂y. The reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from collections.abc import Callable

from torch import Tensor

from funcnet.kernels import losses as kernels
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor, reduction_scale
from funcnet.value import frozen

Kept = tuple[Tensor]


@frozen
class Difference(ElementwiseLoss):
    """A loss that depends on y - t only: the gradient of the target is minus the gradient of y."""

    def cache(self, y: Tensor, t: Tensor) -> Kept:
        return (y - t,)

    def dloss_dt(self, kept: Kept, c: Factor) -> Tensor:
        return self.dloss_dy(kept, -c)


@frozen
class MSE(Difference):
    """Squared error; its default reduction is the mean, as in ``torch.nn.MSELoss``.

        ℓ     = (y - t)²
        ∂ℓ/∂y = 2 (y - t)             ∂ℓ/∂t = -∂ℓ/∂y

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y - t.

    Raises:
        ValueError: If the target has another shape than y (nothing is broadcast) or another floating dtype. Integers and booleans
            are converted.

    References:
        ``torch.nn.MSELoss``.

    >>> MSE()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(4.5000)
    """

    def loss(self, kept: Kept) -> Tensor:
        return kept[0] * kept[0]

    def dloss_dy(self, kept: Kept, c: Factor) -> Tensor:
        return kept[0] * (c + c)

    def total(self, kept: Kept, c: Factor) -> Tensor:
        return kernels.square_sum(kept[0], c)

    def unchecked(self, y: Tensor, target: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        c = reduction_scale(self.reduction, y)
        if self.reduction == "none" or y.dtype is not target.dtype:
            return None
        twice, square_sum = c + c, kernels.square_sum

        def value_and_grad(y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            d = y - target
            return square_sum(d, c), d * twice

        return value_and_grad


@frozen
class L1(Difference):
    """Absolute error; its default reduction is the mean, as in ``torch.nn.L1Loss``.

        ℓ     = |y - t|
        ∂ℓ/∂y = sign(y - t)           ∂ℓ/∂t = -∂ℓ/∂y, and both are 0 where y = t

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y - t.

    References:
        ``torch.nn.L1Loss``.

    >>> L1()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(1.5000)
    """

    def loss(self, kept: Kept) -> Tensor:
        return kept[0].abs()

    def dloss_dy(self, kept: Kept, c: Factor) -> Tensor:
        return kept[0].sign() * c


@frozen
class L2(Difference):
    """Half the squared error, whose gradient is the difference itself: half of ``MSE``.

        ℓ     = ½ (y - t)²
        ∂ℓ/∂y = y - t                 ∂ℓ/∂t = t - y

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y - t.

    References:
        ``optax.l2_loss``.

    >>> L2()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(2.2500)
    """

    def loss(self, kept: Kept) -> Tensor:
        return 0.5 * kept[0] * kept[0]

    def dloss_dy(self, kept: Kept, c: Factor) -> Tensor:
        return kept[0] * c

    def total(self, kept: Kept, c: Factor) -> Tensor:
        return kernels.square_sum(kept[0], 0.5 * c)
