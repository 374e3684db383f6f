"""Losses that grow linearly, which limits the influence of outliers. d = y - t; y and t (...) have the same shape.

    Huber      ℓ = ½ d² where |d| < δ, else δ (|d| - δ/2)            ∂ℓ/∂y = d clipped to ±δ
    SmoothL1   ℓ = ½ d²/β where |d| < β, else |d| - β/2              ∂ℓ/∂y = d/β clipped to ±1
    LogCosh    ℓ = log cosh d                                        ∂ℓ/∂y = tanh d

and ∂ℓ/∂t = -∂ℓ/∂y. The reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from attrs import field
from torch import Tensor

from funcnet.errors import number
from funcnet.kernels import activation, elementwise_losses
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


@frozen
class Huber(ElementwiseLoss):
    """Squared error up to the distance δ, linear beyond: ``torch.nn.HuberLoss``.

        ℓ     = ½ d² where |d| < δ, else δ (|d| - δ/2)         d = y - t
        ∂ℓ/∂y = d clipped to ±δ                                ∂ℓ/∂t = -∂ℓ/∂y

    It equals δ times ``SmoothL1(beta=delta)``.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.
        delta: δ, in the unit of y: larger errors are outliers.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, not copied.

    Raises:
        ValueError: If ``delta`` is not a finite number above 0.

    References:
        Huber 1964, "Robust estimation of a location parameter"; ``torch.nn.HuberLoss``.

    >>> Huber("none")(Tensor([1.5, 5.0]), Tensor([1.0, 2.0]))
    tensor([0.1250, 2.5000])
    """

    delta: float = field(default=1.0, validator=number(above=0))

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        return elementwise_losses.huber(*kept, self.delta)

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return elementwise_losses.huber_slope(*kept, self.delta, c)

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return self.dloss_dy(kept, -c)


@frozen
class SmoothL1(ElementwiseLoss):
    """Absolute error with a parabola of half-width β around 0: ``torch.nn.SmoothL1Loss``.

        ℓ     = ½ d²/β where |d| < β, else |d| - β/2           d = y - t
        ∂ℓ/∂y = d/β clipped to ±1                              ∂ℓ/∂t = -∂ℓ/∂y

    With ``beta=0`` it is ``L1``, whose derivative is 0 at d = 0.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.
        beta: β, in the unit of y: the error at which the parabola ends.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, not copied.

    Raises:
        ValueError: If ``beta`` is not a finite number of at least 0.

    References:
        Girshick 2015, "Fast R-CNN", eq. 3; ``torch.nn.SmoothL1Loss``.

    >>> SmoothL1("none", beta=0.5)(Tensor([1.25, 5.0]), Tensor([1.0, 2.0]))
    tensor([0.0625, 2.7500])
    """

    beta: float = field(default=1.0, validator=number(0))

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        return elementwise_losses.smooth_l1(*kept, self.beta)

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return elementwise_losses.smooth_l1_slope(*kept, self.beta, c)

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return self.dloss_dy(kept, -c)


@frozen
class LogCosh(ElementwiseLoss):
    """Logarithm of the hyperbolic cosine of the error: quadratic near 0, linear far away, and smooth everywhere.

        ℓ     = log cosh d            d = y - t
        ∂ℓ/∂y = tanh d                ∂ℓ/∂t = -tanh d
        ℓ     ≈ ½ d² near 0,  |d| - log 2 far away

    It is accurate to a few ulps for any d. ``optax.log_cosh`` subtracts log 2 and loses the digits of small errors.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        d and tanh d.

    References:
        Chen et al. 2019, "Log hyperbolic cosine loss improves variational auto-encoder"; ``optax.log_cosh``.

    >>> LogCosh("none")(Tensor([1e-3, 100.0]), Tensor([0.0, 0.0]))
    tensor([5.0000e-07, 9.9307e+01])
    """

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        d = y - t
        return d, activation.tanh(d)

    def loss(self, kept: Pair) -> Tensor:
        return elementwise_losses.log_cosh(*kept)

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return kept[1] * c

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return kept[1] * -c
