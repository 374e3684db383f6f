"""Divergences of a distribution t from one with the log-probabilities y; y and t (...) have the same shape.

    KLDiv           ℓ = t (log t - y)               ∂ℓ/∂y = -t             ∂ℓ/∂t = log t + 1 - y
    KLDiv, log t    ℓ = e^t (t - y)                 ∂ℓ/∂y = -e^t           ∂ℓ/∂t = e^t (t - y + 1)
    GeneralizedKL   ℓ = t (log t - y) - t + e^y     ∂ℓ/∂y = e^y - t        ∂ℓ/∂t = log t - y

The reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag
from funcnet.kernels import elementwise_losses as kernels
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor, reductions
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


def _without_mean(reduction: Any) -> Any:
    """Convert torch's name for the sum divided by N to ours."""
    return "batch" if reduction == "batchmean" else reduction


@frozen
class KLDiv(ElementwiseLoss):
    """Kullback-Leibler divergence of probabilities t from log-probabilities y, in nats: ``torch.nn.KLDivLoss``.

        ℓ     = t (log t - y)             with log_target:   e^t (t - y)
        ∂ℓ/∂y = -t                                           -e^t
        ∂ℓ/∂t = log t + 1 - y                                e^t (t - y + 1)

    The divergence of distributions is the sum over their classes: ``reduction="batch"`` gives its mean over rows. ``"mean"``,
    torch's default, divides by the number of classes too.

    A class of probability 0 costs 0, even if its log-probability y is -inf; torch returns NaN. There ∂ℓ/∂t is 0 instead of -∞,
    since 0 is the limit of t ∂ℓ/∂t, the product that the gradient of a softmax contains.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0; torch's ``"batchmean"`` means ``"batch"``.
        log_target: Whether the target holds log-probabilities too.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, and with ``log_target`` e^t.

    References:
        Kullback & Leibler 1951; ``torch.nn.KLDivLoss``.

    >>> import torch
    >>> KLDiv("batch")(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """

    reduction: str = field(default="mean", validator=reductions, converter=_without_mean)
    log_target: bool = field(default=False, validator=flag)

    def cache(self, y: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        return (y, t, t.exp()) if self.log_target else (y, t)

    def loss(self, kept: tuple[Tensor, ...]) -> Tensor:
        return kernels.log_kl_terms(*kept) if self.log_target else kernels.kl_terms(*kept)

    def dloss_dy(self, kept: tuple[Tensor, ...], c: Factor) -> Tensor:
        return kept[-1] * -c

    def dloss_dt(self, kept: tuple[Tensor, ...], c: Factor) -> Tensor:
        return (kernels.log_kl_target_slope(*kept) if self.log_target else kernels.kl_target_slope(*kept)) * c


@frozen
class GeneralizedKL(ElementwiseLoss):
    """Kullback-Leibler divergence of positive numbers t, which need not sum to 1, from logarithms y.

        ℓ     = t (log t - y) - t + e^y
        ∂ℓ/∂y = e^y - t
        ∂ℓ/∂t = log t - y

    A term is 0 where y = log t, and positive elsewhere. The target 0 costs e^y; ∂ℓ/∂t is -1 there instead of -∞, as in ``KLDiv``.
    ``reduction="batch"`` gives the mean of ``optax.generalized_kl_divergence`` over rows.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, not copied.

    References:
        Bregman 1967, "The relaxation method of finding the common point of convex sets"; ``optax.generalized_kl_divergence``.

    >>> import torch
    >>> GeneralizedKL("none")(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0]))
    tensor([0.0000, 0.3863])
    """

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        y, t = kept
        return kernels.kl_terms(y, t) + (y.exp() - t)

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        y, t = kept
        return (y.exp() - t) * c

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return kernels.generalized_kl_target_slope(*kept) * c
