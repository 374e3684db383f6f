"""AdEMAMix: Adam with a second, slower momentum."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean, mean_square, shrink
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field, tuple_of_rates
from funcnet.value import frozen


@frozen
class AdEMAMix(MomentOptimizer):
    """Adam with a fast and a slow average of gradients: ``optax.contrib.ademamix``.

        m ← β₁ m + (1 - β₁) g      s ← β₃ s + (1 - β₃) g      v ← β₂ v + (1 - β₂) g²
        p ← (1 - η λ) p - η (m̂ + α s) / (√(v̂ + ε₀) + ε)                  m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    With ``maximize``, -g replaces g. The slow average s starts at 0 without bias correction. For long runs the paper increases α
    and β₃ with schedules.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas``, ``alpha`` and ``weight_decay``, it is a number, a schedule of
            the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂, β₃), the decay rates of m, v and s.
        alpha: α, the weight of the slow average.
        eps: ε, added to the root, in the unit of g.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        eps_root: ε₀, added under the root, in the unit of g².
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_slow: s, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or an eps is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Pagliardini, Ablin & Grangier 2024, "The AdEMAMix optimizer: better, faster, older", algorithm 1.

    >>> import torch
    >>> [*AdEMAMix().init({"w": torch.ones(1)})]
    ['step', 'exp_avg', 'exp_avg_slow', 'exp_avg_sq']
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_slow", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0, 1.0, inf, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate, Rate] = rate_field((0.9, 0.999, 0.9999), validator=tuple_of_rates(3))
    alpha: Rate = rate_field(5.0)
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    eps_root: float = field(default=0.0, kw_only=True, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        betas = dict(zip(("beta1", "beta2", "beta3"), self.betas, strict=True))
        return {"lr": self.lr, **betas, "alpha": self.alpha, "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {**rates, "a": 1 - rates["beta1"] ** t, "b": 1 - rates["beta2"] ** t}, scalars

    def formula(self, p: Tensor, g: Tensor, m: Tensor, s: Tensor, v: Tensor, **numbers: Any) -> tuple[Tensor, ...]:
        lr, beta1, beta2, beta3, alpha, decay, a, b = numbers.values()
        g = along(g, self.maximize)
        m = mean(m, g, beta1)
        s = mean(s, g, beta3)
        v = mean_square(v, g, beta2)
        step = (m / a + alpha * s) / ((v / b + self.eps_root).sqrt() + self.eps)
        return descend(shrink(p, lr, decay), step, lr), m, s, v
