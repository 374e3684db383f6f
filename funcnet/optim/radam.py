"""RAdam: Adam with a rectified adaptive rate."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, descend, mean, mean_square, shrink, where
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class RAdam(MomentOptimizer):
    """Adam that uses its variance estimate only once it is reliable: ``torch.optim.RAdam``.

        g ← ±g + λ p                                    with decoupled_weight_decay: p ← (1 - η λ) p instead
        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²      m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)
        ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)      ρ∞ = 2 / (1 - β₂) - 1      r² = (ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ)
        p ← p - η r m̂ / √v̂  where ρ > 5, else p ← p - η m̂

    ε is added to √v. With the default betas, the adaptive rate begins at step 6, which replaces a warm-up.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, added to the denominator, in the unit of g.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p; of 1 / ``lr`` if decoupled.
        decoupled_weight_decay: Whether to shrink p directly, as ``AdamW`` does, instead of adding λ p to the gradient.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2.

    >>> import torch
    >>> opt, params = RAdam(lr=0.1), {"w": torch.ones(1)}
    >>> opt.update({"w": torch.tensor([2.0])}, opt.init(params), params)[0]
    {'w': tensor([0.8000])}
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    decoupled_weight_decay: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay = rates.values()
        correction, most = 1 - beta2**t, 2 / (1 - beta2) - 1
        rho = most - 2 * t * beta2**t / correction
        is_rectified = rho > 5
        rho, most = where(is_rectified, rho, 6.0), where(is_rectified, most, 6.0)
        root = (correction * (rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) ** 0.5
        rate = lr / (1 - beta1**t) * where(is_rectified, root, 1.0)
        return {"lr": lr, "beta1": beta1, "beta2": beta2, "decay": decay, "rate": rate, "is_rectified": is_rectified}, scalars

    def formula(
        self,
        p: Tensor,
        g: Tensor,
        m: Tensor,
        v: Tensor,
        *,
        lr: Any,
        beta1: Any,
        beta2: Any,
        decay: Any,
        rate: Any,
        is_rectified: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = along(g, self.maximize)
        p, g = (shrink(p, lr, decay), g) if self.decoupled_weight_decay else (p, add_decay(g, p, decay))
        m = mean(m, g, beta1)
        v = mean_square(v, g, beta2)
        return descend(p, where(is_rectified, m / (v.sqrt() + self.eps), m), rate), m, v
