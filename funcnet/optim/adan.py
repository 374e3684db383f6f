"""Adan: Adam with Nesterov momentum estimated from differences of gradients."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean, mean_square, shrink, where
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field, tuple_of_rates
from funcnet.value import frozen


@frozen
class Adan(MomentOptimizer):
    """Adam with averages of the gradient, of its change, and of the square of both combined: ``optax.adan``.

        d = g - g′                                      g′ the previous gradient; d = 0 at t = 1
        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) d      n ← β₃ n + (1 - β₃) (g + (1 - β₂) d)²
        p ← (1 - η λ) p - η (m̂ + (1 - β₂) v̂) / (√(n̂ + ε₀) + ε)           m̂ = m / (1 - β₁ᵗ), and v̂ and n̂ likewise

    With ``maximize``, -g replaces g. The paper writes 1 - β for each β of this formula. It also multiplies d in n, and v̂, by β₂
    instead of 1 - β₂, in the notation of this formula.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂, β₃), the decay rates of m, v and n.
        eps: ε, added to the root, in the unit of g.
        eps_root: ε₀, added under the root, in the unit of g².
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_diff: v, like params.
        exp_avg_sq: n, like params.
        prev: g′, like params.

    Raises:
        ValueError: If a rate or an eps is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Xie et al. 2024, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", algorithm 1.

    >>> import torch
    >>> [*Adan().init({"w": torch.ones(1)})]
    ['step', 'exp_avg', 'exp_avg_diff', 'exp_avg_sq', 'prev']
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "prev")
    rates_below = (inf, 1.0, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate, Rate] = rate_field((0.98, 0.92, 0.99), validator=tuple_of_rates(3))
    eps: float = field(default=1e-8, validator=number(0.0))
    eps_root: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        betas = dict(zip(("beta1", "beta2", "beta3"), self.betas, strict=True))
        return {"lr": self.lr, **betas, "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        _, beta1, beta2, beta3, _ = rates.values()
        corrections = {"a": 1 - beta1**t, "b": (1 - beta2**t) / (1 - beta2), "c": 1 - beta3**t}
        return {**rates, **corrections, "is_first": t == 1}, scalars

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, n: Tensor, before: Tensor, **numbers: Any
    ) -> tuple[Tensor, ...]:
        lr, beta1, beta2, beta3, decay, a, b, c, is_first = numbers.values()
        g = along(g, self.maximize)
        d = g - where(is_first, g, before)
        m = mean(m, g, beta1)
        v = mean(v, d, beta2)
        n = mean_square(n, g + (1 - beta2) * d, beta3)
        u = (m / a + v / b) / ((n / c + self.eps_root).sqrt() + self.eps)
        return descend(shrink(p, lr, decay), u, lr), m, v, n, g
