"""NAdam: Adam with Nesterov's momentum."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, descend, mean, mean_square, shrink
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class NAdam(MomentOptimizer):
    """Adam with Nesterov momentum: ``torch.optim.NAdam``.

        g ← ±g + λ p                                    with decoupled_weight_decay: p ← (1 - η λ) p instead
        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
        μ = β₁ (1 - ½ · 0.96^(t ψ))      μ′ = β₁ (1 - ½ · 0.96^((t + 1) ψ))      P ← P μ
        p ← p - η ((1 - μ) g / (1 - P) + μ′ m / (1 - P μ′)) / (√(v / (1 - β₂ᵗ)) + ε)

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas``, ``weight_decay`` and ``momentum_decay``, it is a number, a
            schedule of the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, added to the denominator, in the unit of g.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p; of 1 / ``lr`` if decoupled.
        momentum_decay: ψ, how fast the momentum grows to β₁, per update.
        decoupled_weight_decay: Whether to shrink p directly, as ``AdamW`` does, instead of adding λ p to the gradient.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        mu_product: P, a 0-d float64 tensor; in torch it is float32 by default.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Dozat 2016, "Incorporating Nesterov momentum into Adam".

    >>> import torch
    >>> NAdam().init({"w": torch.ones(1)})["mu_product"]
    tensor(1., dtype=torch.float64)
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0, inf, inf)

    lr: Rate = rate_field(2e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    momentum_decay: Rate = rate_field(4e-3)
    decoupled_weight_decay: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def scalars(self) -> dict[str, float]:
        return {"mu_product": 1.0}

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        betas = {"beta1": self.betas[0], "beta2": self.betas[1]}
        return {"lr": self.lr, **betas, "weight_decay": self.weight_decay, "momentum_decay": self.momentum_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay, psi = rates.values()
        mu, after = (beta1 * (1 - 0.5 * 0.96 ** (n * psi)) for n in (t, t + 1))
        product = scalars["mu_product"] * mu
        share = (1 - mu) / (1 - product)
        ahead = {"rate": lr * share, "ratio": after / (1 - product * after) / share, "correction": 1 - beta2**t}
        return {"lr": lr, "beta1": beta1, "beta2": beta2, "decay": decay, **ahead}, {"mu_product": product}

    def formula(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, **numbers: Any) -> tuple[Tensor, Tensor, Tensor]:
        lr, beta1, beta2, decay, rate, ratio, correction = numbers.values()
        g = along(g, self.maximize)
        p, g = (shrink(p, lr, decay), g) if self.decoupled_weight_decay else (p, add_decay(g, p, decay))
        m = mean(m, g, beta1)
        v = mean_square(v, g, beta2)
        step = descend(g, m, -ratio) / ((v / correction).sqrt() + self.eps)  # g + ratio m, in one pass
        return descend(p, step, rate), m, v
