"""KL divergence of normal distributions, given by means and log variances: y = (m, v) and t = (m₀, v₀), each (...).

    GaussianKL   ℓ = ½ (e^u - 1 - u + d² p)         u = v - v₀,  d = m - m₀,  p = e^(-v₀)
                 ∂ℓ/∂y = (d p, ½ (e^u - 1))         for m and v
                 ∂ℓ/∂t = (-d p, -½ (e^u - 1 + d² p))

gy = g c ∂ℓ/∂y, and the reduction sets c to 1 for "sum" and "none", 1/n for "mean", 1/N for "batch".
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.errors import describe, value_error
from funcnet.kernels import losses as kernels
from funcnet.losses.loss import Loss, reduction_scale, reductions
from funcnet.losses.terms import is_dense
from funcnet.value import frozen


@frozen
class GaussianKL(Loss):
    """KL divergence of N(m, e^v) from a prior, in nats, with one term per element: the second loss of a variational autoencoder.

        ℓ     = ½ (e^u - 1 - u + d² p)                  u = v - v₀,  d = m - m₀,  p = e^(-v₀)
        ∂ℓ/∂y = (d p, ½ (e^u - 1))                      for m and v
        ∂ℓ/∂t = (-d p, -½ (e^u - 1 + d² p))             for m₀ and v₀

    y is the pair (mean, log_variance), the input of ``GaussianSample``; its gradient is a pair too. The target is such a pair for
    the prior, or ``None`` for the standard normal. Variational autoencoders usually sum over the latent dimensions and average
    over the batch: ``reduction="batch"``. Half precision is computed in float32.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y a pair of (...), target a pair of (...) or ``None`` → (), or (...) with ``reduction="none"``

    Cache:
        u, d and p, c, and the dtype of y.

    Raises:
        ValueError: If y, or a target other than ``None``, is not a pair of floating tensors, or if shapes, dtypes or devices
            differ.

    References:
        Kingma & Welling 2014, "Auto-encoding variational Bayes", appendix B.

    >>> GaussianKL("sum")((torch.ones(2), torch.zeros(2)), None)
    tensor(1.)
    """

    reduction: str = field(default="mean", validator=reductions)

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Cache]:
        self._require_pairs(y, target)
        dtype = y[0].dtype
        mean, v, *prior = [one.to(torch.promote_types(dtype, torch.float32)) for one in (*y, *(target or ()))]
        d, u = (mean - prior[0], v - prior[1]) if prior else (mean, v)
        p = torch.exp(-prior[1]) if prior else None
        terms = (torch.expm1(u) - u + _times(d * d, p)) * 0.5
        c = reduction_scale(self.reduction, mean)
        value = terms if self.reduction == "none" else kernels.weighted_sum(terms, c)
        return value.to(dtype), (d, u, p, c, dtype)

    def backward(self, cache: Cache, g: Tensor | None = None) -> Any:
        d, u, p, c, dtype = cache
        c = c if g is None else g * c
        return (_times(d, p) * c).to(dtype), (torch.expm1(u) * 0.5 * c).to(dtype)

    def target_grad(self, cache: Cache, g: Tensor) -> Any:
        d, u, p, c, dtype = cache
        c = g * c
        return (_times(d, p) * -c).to(dtype), ((torch.expm1(u) + _times(d * d, p)) * -0.5 * c).to(dtype)

    def weight_of(self, target: Any) -> float | Tensor:
        return target[0].numel() if target is not None and self.reduction == "mean" else super().weight_of(target)

    def _require_pairs(self, y: Any, target: Any) -> None:
        for name, pair in {"y": y, **({} if target is None else {"target": target})}.items():
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(is_dense, pair)):
                raise value_error(self, f"{name} must be a pair (mean, log_variance) of dense floating tensors", pair)
        kinds = [(one.shape, one.dtype, one.device) for one in (*y, *(target or ()))]
        if any([kind != kinds[0] for kind in kinds[1:]]):  # noqa: C419
            rule = "means and log variances must have the same shape, dtype and device"
            raise value_error(self, rule, " and ".join([describe(one) for one in (*y, *(target or ()))]))


def _times(x: Tensor, p: Tensor | None) -> Tensor:
    """Return x p; ``None`` means p = 1."""
    return x if p is None else x * p
