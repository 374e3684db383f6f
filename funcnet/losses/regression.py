"""Losses for numbers: how far each element of y is from the target t, d = y - t; y and t (...) have one shape, any.

    MSE   ℓ = d²      ∂ℓ/∂y = 2 d
    L1    ℓ = |d|     ∂ℓ/∂y = sign d     sign 0 = 0
    L2    ℓ = ½ d²    ∂ℓ/∂y = d

and ∂ℓ/∂t = -∂ℓ/∂y. By the reduction, with c = 1 for "sum" and "none", 1/n for "mean", 1/N for "batch",

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from collections.abc import Callable

from torch import Tensor

from funcnet.kernels import losses as kernels
from funcnet.losses.loss import ElementwiseLoss, Factor, reduction_scale
from funcnet.value import frozen

Kept = tuple[Tensor]


@frozen
class Difference(ElementwiseLoss):
    """A loss that depends on y - t alone, so that the target's gradient is the opposite of y's."""

    def cache(self, y: Tensor, t: Tensor) -> Kept:
        return (y - t,)

    def dloss_dt(self, kept: Kept, c: Factor) -> Tensor:
        return self.dloss_dy(kept, -c)


@frozen
class MSE(Difference):
    """Squared error, (y - t)², in the square of y's unit; with ``reduction="mean"``, the default, as ``torch.nn.MSELoss``.

    >>> MSE()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(4.5000)

    Cache    ``y - target``.
    Raises   ``ValueError`` for an unknown ``reduction``, when ``y`` is not a floating tensor, and when ``target`` has another
             shape (nothing is broadcast) or another floating dtype; integers and booleans are taken as numbers.
    Source   ``torch.nn.MSELoss``'s formula.
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
    """Absolute error, |y - t|, in y's unit, with the slope 0 where y = t; with ``reduction="mean"`` as ``torch.nn.L1Loss``.

    >>> L1()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(1.5000)

    Cache    ``y - target``.
    Raises   ``ValueError`` as ``MSE`` does.
    Source   ``torch.nn.L1Loss``'s formula.
    """

    def loss(self, kept: Kept) -> Tensor:
        return kept[0].abs()

    def dloss_dy(self, kept: Kept, c: Factor) -> Tensor:
        return kept[0].sign() * c


@frozen
class L2(Difference):
    """Half the squared error, ½ (y - t)², whose slope is the difference itself: half of ``MSE``, with its ``reduction``.

    >>> L2()(Tensor([1.0, 5.0]), Tensor([1.0, 2.0]))
    tensor(2.2500)

    Cache    ``y - target``.
    Raises   ``ValueError`` as ``MSE`` does.
    Source   ``optax.l2_loss``.
    """

    def loss(self, kept: Kept) -> Tensor:
        return 0.5 * kept[0] * kept[0]

    def dloss_dy(self, kept: Kept, c: Factor) -> Tensor:
        return kept[0] * c

    def total(self, kept: Kept, c: Factor) -> Tensor:
        return kernels.square_sum(kept[0], 0.5 * c)
