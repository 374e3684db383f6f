"""ADOPT: Adam that divides each gradient by the root mean square of earlier gradients only, and converges with any β₂."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean, mean_square, shrink, where
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class ADOPT(MomentOptimizer):
    """Adam that divides each gradient by the root mean square of earlier gradients, then averages: ``optax.contrib.adopt``.

        u = clip(g / max(√v, ε), -c, c)                 c = (t - 1)^¼ with use_clipping, else ∞
        m ← β₁ m + (1 - β₁) u                           m stays 0 at t = 1
        p ← (1 - η λ) p - η m,      nesterov: p ← (1 - η λ) p - η (β₁ m + (1 - β₁) u)
        v ← β₂ v + (1 - β₂) g²                          v = g² at t = 1; -g in place of g with maximize

    The first update only applies weight decay.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, the smallest denominator, in the unit of g.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        nesterov: Whether the step looks ahead along the momentum.
        use_clipping: Whether to clip normalized gradients, which bounds the first steps.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Taniguchi et al. 2024, "ADOPT: modified Adam can converge with any β₂ with the optimal rate", with clipping.

    >>> import torch
    >>> opt, params = ADOPT(lr=0.1, betas=(0.5, 0.9)), {"w": torch.ones(1)}
    >>> state = opt.init(params)
    >>> for g in (2.0, 2.0):
    ...     params, state = opt.update({"w": torch.tensor([g])}, state, params)
    >>> params
    {'w': tensor([0.9500])}
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.9999), validator=pair_of_rates())
    eps: float = field(default=1e-6, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    nesterov: bool = field(default=False, kw_only=True, validator=flag)
    use_clipping: bool = field(default=True, kw_only=True, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        is_first, beta2 = t == 1, rates["beta2"]
        return {**rates, "beta2": where(is_first, 0.0, beta2), "is_first": is_first, "limit": (t - 1) ** 0.25}, scalars

    def formula(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, **numbers: Any) -> tuple[Tensor, Tensor, Tensor]:
        lr, beta1, beta2, decay, is_first, limit = numbers.values()
        g = along(g, self.maximize)
        u = g / v.sqrt().clamp(min=self.eps)
        u = where(is_first, m, u.clamp(-limit, limit) if self.use_clipping else u)
        m = mean(m, u, beta1)
        step = mean(m, u, beta1) if self.nesterov else m
        return descend(shrink(p, lr, decay), step, lr), m, mean_square(v, g, beta2)
