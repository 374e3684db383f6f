"""Negative log-likelihoods of numbers t, given a rate λ, or a mean m and a variance v, that the net computes.

    PoissonNLL    ℓ = λ - t log λ                       ∂ℓ/∂log λ = λ - t        ∂ℓ/∂t = -log λ
    GaussianNLL   ℓ = ½ (log v + d²/v)                  ∂ℓ/∂y = (d/v, ½ (1/v - d²/v²)), for m and v
                  d = m - t                             ∂ℓ/∂t = -d/v

The reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch":

    gy = g c ∂ℓ/∂y    gt = g c ∂ℓ/∂t     g the gradient of the value
"""

import math
from typing import TYPE_CHECKING, Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number, value_error
from funcnet.kernels import elementwise_losses, losses
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor, fitting_target, reductions
from funcnet.losses.terms import TermLoss, is_dense
from funcnet.precision import in_single
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


@frozen
class PoissonNLL(ElementwiseLoss):
    """Negative log-likelihood of counts t with the Poisson rate λ: ``torch.nn.PoissonNLLLoss``.

        ℓ     = e^y - t y                     y = log λ; with log_input=False   y - t log(y + ε),  y = λ
        ∂ℓ/∂y = e^y - t                                                         1 - t / (y + ε)
        ∂ℓ/∂t = -y                                                              -log(y + ε)

    With ``full``, where t > 1, Stirling's approximation of log t!, t log t - t + ½ log(2πt), is added to ℓ, and log t + 1/(2t) to
    ∂ℓ/∂t.

    The count 0 at the rate 0 (y = -inf) costs 0, and a rate of ∞ costs ∞; torch returns NaN for both.

    Args:
        log_input: Whether y is log λ, which any net can compute, instead of λ.
        full: Whether to add Stirling's approximation of log t!; the gradient of y does not depend on it.
        eps: ε, which keeps log λ finite at λ = 0; only used with ``log_input=False``.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        λ, log λ and the target.

    Raises:
        ValueError: If ``eps`` is not a finite number above 0.

    References:
        ``torch.nn.PoissonNLLLoss``.

    >>> import torch
    >>> PoissonNLL()(torch.tensor([0.0, 1.0]), torch.tensor([1, 3]))
    tensor(0.3591)
    """

    log_input: bool = field(default=True, validator=flag)
    full: bool = field(default=False, validator=flag)
    eps: float = field(default=1e-8, validator=number(above=0))
    reduction: str = field(default="mean", validator=reductions)

    if TYPE_CHECKING:  # a type checker would put inherited fields first

        def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None: ...

    def cache(self, y: Tensor, t: Tensor) -> Triple:
        return (y.exp(), y, t) if self.log_input else (y, (y + self.eps).log(), t)

    def loss(self, kept: Triple) -> Tensor:
        terms = elementwise_losses.poisson_terms(*kept)
        return terms + elementwise_losses.stirling(kept[2]) if self.full else terms

    def dloss_dy(self, kept: Triple, c: Factor) -> Tensor:
        rate, _, t = kept
        return (rate - t if self.log_input else 1 - t / (rate + self.eps)) * c

    def dloss_dt(self, kept: Triple, c: Factor) -> Tensor:
        _, log_rate, t = kept
        slope = -elementwise_losses.counted(t, log_rate)
        return (slope + elementwise_losses.stirling_slope(t) if self.full else slope) * c


@frozen
class GaussianNLL(TermLoss):
    """Negative log-likelihood of t under a normal distribution with mean m and variance v: ``torch.nn.GaussianNLLLoss``.

        ℓ     = ½ (log v + d²/v)               d = m - t,  v at least ε
        ∂ℓ/∂m = d/v                            ∂ℓ/∂t = -d/v
        ∂ℓ/∂v = ½ (1/v - d²/v²)                summed over the elements that share one v
        gy    = g c (∂ℓ/∂m, ∂ℓ/∂v)             c = 1/n for "mean", 1 for "sum" and "none", 1/N for "batch"

    y is the pair (mean, var), torch's first and third argument; its gradient is a pair too. A net with two heads computes it:
    ``branch(Linear(n, 1), serial(Linear(n, 1), Softplus()))``. As in torch, a variance below ε is replaced with ε and has the
    gradient at ε, which lets it grow again. The squares do not overflow unless d²/v does. Half precision is computed in float32.

    Args:
        full: Whether to add ½ log 2π; no gradient depends on it.
        eps: ε, the smallest variance, in the unit of v.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        (mean (...), var), target (...) → (), or (...) with ``reduction="none"``; var has the shape of mean, except that one axis
        can have the size 1, or the last axis can be missing: all elements along that axis then share a variance

    Cache:
        d and the variance, in float32 or wider, and an empty tensor with the shape of var.

    Raises:
        ValueError: If y is not a pair (mean, var) of dense floating tensors with the same dtype and device, if var has another
            shape than those above, or, in eager mode on the CPU, if a variance is negative; elsewhere its terms are NaN.

    References:
        Nix & Weigend 1994, "Estimating the mean and variance of the target probability distribution";
        ``torch.nn.GaussianNLLLoss``.

    >>> import torch
    >>> GaussianNLL(reduction="sum")((torch.tensor([1.0, 3.0]), torch.tensor([1.0, 4.0])), torch.tensor([0.0, 1.0]))
    tensor(1.6931)
    """

    full: bool = field(default=False, validator=flag)
    eps: float = field(default=1e-6, validator=number(above=0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Any, target: Tensor) -> Triple:
        mean, var = self._pair(y)
        t, v = fitting_target(self, mean, target), self._variance(mean, var)
        return in_single(mean) - in_single(t), v, var.new_empty(0).expand(*var.shape, 0)

    def loss(self, kept: Triple) -> Tensor:
        d, v, _ = kept
        w = elementwise_losses.bounded_variance(v, self.eps)
        terms = 0.5 * (w.log() + d * (d / w))
        return terms + 0.5 * math.log(2 * math.pi) if self.full else terms

    def dloss_dy(self, kept: Triple, g: Factor) -> Pair:
        d, v, like = kept
        w = v.clamp_min(self.eps)
        r = d / w
        return r * g, _sum_shared(0.5 * (w.reciprocal() - r * r), g, v).reshape(like.shape[:-1])

    def dloss_dt(self, kept: Triple, g: Factor) -> Tensor:
        d, v, _ = kept
        return d / v.clamp_min(self.eps) * -g

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else super().weight_of(target)

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        """Reshape the mask ``terms`` for a leaf of y or the target: a shared variance is masked only if all of its terms are."""
        shape = leaf.shape if leaf.dim() == terms.dim() else (*leaf.shape, 1)
        for axis in [i for i in range(terms.dim()) if shape[i] != terms.shape[i]]:
            terms = terms.all(axis, keepdim=True)
        return terms.reshape(leaf.shape)

    def _pair(self, y: Any) -> Pair:
        """Return the mean and the variance, which must be dense floating tensors with the same dtype and device."""
        if not isinstance(y, tuple) or len(y) != 2 or not all(map(is_dense, y)):
            raise value_error(self, "y must be a pair (mean, var) of dense floating tensors", y)
        mean, var = y
        if mean.dtype is not var.dtype or mean.device != var.device:
            rule = "mean and var must have one dtype and device"
            raise value_error(self, rule, f"{mean.dtype} on {mean.device} and {var.dtype} on {var.device}")
        return mean, var

    def _variance(self, mean: Tensor, var: Tensor) -> Tensor:
        """Return the variance, in float32 or wider, with the axes of the mean; it must not be negative."""
        if var.dim() < mean.dim() and var.shape == mean.shape[:-1]:
            var = var.unsqueeze(-1)
        if var.dim() != mean.dim() or [n for n, m in zip(var.shape, mean.shape, strict=True) if n != m] not in ([], [1]):
            rule = f"var must have the shape of mean, {tuple(mean.shape)}, or one axis of size 1, or no last axis"
            raise value_error(self, rule, f"shape {tuple(var.shape)}")
        if elementwise_losses.has_negative(var):
            raise value_error(self, "var must hold variances of at least 0", f"{var.amin().item():g}")
        return in_single(var)


def _sum_shared(slope: Tensor, c: Factor, v: Tensor) -> Tensor:
    """Return c times the derivative, summed over the terms that share a variance; where c = 0, it is 0 even for ∞ and NaN."""
    if v.shape == slope.shape:
        return slope * c
    terms: Tensor = losses.product(c.expand_as(slope), slope) if isinstance(c, Tensor) and c.dim() else slope * c
    return terms.sum_to_size(v.shape)
