"""LAMB: Adam's direction, with a step proportional to the norm of each tensor."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, mean, mean_square, trust_ratio
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class LAMB(MomentOptimizer):
    """Adam with the step of each tensor scaled to the norm of that tensor, for large batches: ``optax.lamb``.

        m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²      m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)
        u = m̂ / (√(v̂ + ε₀) + ε) + λ p                   -g in place of g with maximize
        p ← p - η ‖p‖ / ‖u‖ u                           ‖p‖ / ‖u‖ is 1 where one of the norms is 0

    Args:
        lr: η, the learning rate: the norm of a step relative to the norm of p. Like ``betas`` and ``weight_decay``, it is a
            number, a schedule of the number of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and v.
        eps: ε, added to the root, in the unit of g.
        weight_decay: λ, in the unit of 1 / p.
        donated: Whether params and state may be overwritten; set by ``donate``.
        eps_root: ε₀, added under the root, in the unit of g².
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2.

    >>> import torch
    >>> opt, params = LAMB(lr=0.1), {"w": torch.tensor([3.0, 4.0])}
    >>> opt.update({"w": torch.tensor([5.0, 0.0])}, opt.init(params), params)[0]  # a tenth of the norm, along Adam's step
    {'w': tensor([2.5000, 4.0000])}
    """

    acts_on = "leaves"
    moments = ("exp_avg", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-6, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    eps_root: float = field(default=0.0, kw_only=True, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay = rates.values()
        return {"lr": lr, "beta1": beta1, "beta2": beta2, "decay": decay, "a": 1 - beta1**t, "b": 1 - beta2**t}, scalars

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, lr: Any, beta1: Any, beta2: Any, decay: Any, a: Any, b: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = along(g, self.maximize)
        m = mean(m, g, beta1)
        v = mean_square(v, g, beta2)
        u = add_decay(m / a / ((v / b + self.eps_root).sqrt() + self.eps), p, decay)
        return p - lr * trust_ratio(p, u) * u, m, v
