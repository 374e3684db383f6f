"""Adamax: Adam with the largest gradient in place of the mean square."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.kernels import optim_in_place as kernels
from funcnet.kernels.optim import read
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, descend, mean
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, as_wide, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class Adamax(MomentOptimizer):
    """Adam with a decaying maximum of gradients as denominator: ``torch.optim.Adamax``.

        g ← ±g + λ p
        m ← β₁ m + (1 - β₁) g      u ← max(β₂ u, |g| + ε)
        p ← p - η m / ((1 - β₁ᵗ) u)

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and u.
        eps: ε, added to the absolute gradient, in the unit of g.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        exp_inf: u, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 2; torch adds ε.

    >>> import torch
    >>> opt, params = Adamax(lr=0.1), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01])}, opt.init(params), params)[0]
    {'w': tensor([0.9000, 1.1000])}
    """

    acts_on = "elements"
    moments = ("exp_avg", "exp_inf")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(2e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.999), validator=pair_of_rates())
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, beta1, beta2, decay = rates.values()
        return {"rate": lr / (1 - beta1**t), "beta1": beta1, "beta2": beta2, "decay": decay}, scalars

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        named = dict(zip(self.hyperparameters, rates, strict=True))
        numbers, _ = self.coefficients(as_wide(read(step)), named, {}, columns)
        done = kernels.adamax(columns, [*numbers.values()], self.eps, self.maximize, self.donated)
        return super().step(columns, step, rates) if done is None else done

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, u: Tensor, *, rate: Any, beta1: Any, beta2: Any, decay: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = add_decay(along(g, self.maximize), p, decay)
        m = mean(m, g, beta1)
        u = (beta2 * u).maximum(g.abs() + self.eps)
        return descend(p, m / u, rate), m, u
