"""AdaBelief: Adam with the variance of the gradient around its mean in the denominator."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean, mean_square, shrink
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class AdaBelief(MomentOptimizer):
    """Adam that takes large steps where gradients agree with their mean: ``optax.adabelief``.

        m ← β₁ m + (1 - β₁) g      s ← β₂ s + (1 - β₂) (g - m)² + ε₀          -g in place of g with maximize
        p ← (1 - η λ) p - η m̂ / (√ŝ + ε)                m̂ = m / (1 - β₁ᵗ), ŝ = s / (1 - β₂ᵗ)
        nesterov: m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and s.
        eps: ε, added to the root, in the unit of g.
        eps_root: ε₀, added to s at each step, in the unit of g².
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        nesterov: Whether the step looks ahead along the momentum.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_var: s, like params.

    Raises:
        ValueError: If a rate or an eps is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Zhuang et al. 2020, "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", algorithm 2.

    >>> import torch
    >>> AdaBelief().init({"w": torch.ones(1)})["exp_avg_var"]
    {'w': tensor([0.])}
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_var")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-16, validator=number(0.0))
    eps_root: float = field(default=1e-16, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    nesterov: bool = field(default=False, kw_only=True, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay = rates.values()
        a, b = 1 / (1 - beta1**t), 0.0
        if self.nesterov:
            a, b = beta1 / (1 - beta1 ** (t + 1)), (1 - beta1) * a
        return {"lr": lr, "beta1": beta1, "beta2": beta2, "decay": decay, "a": a, "b": b, "c": 1 - beta2**t}, scalars

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, s: Tensor, *, lr: Any, beta1: Any, beta2: Any, decay: Any, a: Any, b: Any, c: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = along(g, self.maximize)
        m = mean(m, g, beta1)
        s = mean_square(s, g - m, beta2) + self.eps_root
        ahead = a * m + b * g if self.nesterov else a * m
        return descend(shrink(p, lr, decay), ahead / ((s / c).sqrt() + self.eps), lr), m, s
