"""Yogi: Adam whose mean square changes by at most a fraction of the squared gradient."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class Yogi(MomentOptimizer):
    """Adam with an additive update of the denominator, which forgets large gradients slowly: ``optax.yogi``.

        m ← β₁ m + (1 - β₁) g      v ← v - (1 - β₂) sign(v - g²) g²          -g in place of g with maximize
        p ← p - η m̂ / (√v̂ + ε)                          m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas``, it is a number, a schedule of the number of updates made, or a
            0-d tensor.
        betas: (β₁, β₂): β₁ is the decay rate of m, and v changes by (1 - β₂) g² per update.
        eps: ε, added to the denominator, in the unit of g.
        donated: Whether params and state may be overwritten; set by ``donate``.
        initial_accumulator_value: The initial value of m and v.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_avg_sq: v, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", algorithm 2, with Adam's corrections of m and v as in
        optax.

    >>> import torch
    >>> Yogi().init({"w": torch.ones(1)})["exp_avg_sq"]
    {'w': tensor([1.0000e-06])}
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_avg_sq")
    rates_below = (inf, 1.0, 1.0)

    lr: Rate = rate_field(1e-2)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-3, validator=number(0.0))
    initial_accumulator_value: float = field(default=1e-6, kw_only=True, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1]}

    def initial(self, name: str, p: Tensor) -> Tensor:
        return super().initial(name, p) + self.initial_accumulator_value

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2 = rates.values()
        return {"beta1": beta1, "beta2": beta2, "rate": lr / (1 - beta1**t), "correction": 1 - beta2**t}, scalars

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, beta1: Any, beta2: Any, rate: Any, correction: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = along(g, self.maximize)
        m, square = mean(m, g, beta1), g * g
        v = v - (1 - beta2) * (v - square).sign() * square
        return descend(p, m / ((v / correction).sqrt() + self.eps), rate), m, v
