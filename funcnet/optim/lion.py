"""Lion: steps in the direction of the sign of an interpolated momentum."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag
from funcnet.kernels import optim_in_place as kernels
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import along, descend, mean, shrink, sign
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class Lion(MomentOptimizer):
    """Sign descent with momentum and decoupled weight decay: ``optax.lion``.

        u = sign(β₁ m + (1 - β₁) g)                -g in place of g with maximize
        p ← (1 - η λ) p - η u
        m ← β₂ m + (1 - β₂) g

    Every element moves by η, whatever the size of its gradient. Choose ``lr`` 3 to 10 times smaller than for Adam, and
    ``weight_decay`` larger by the same factor.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the weight of m in the direction, and the decay rate of m.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        maximize: Whether to maximize the loss.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        exp_avg: m, like params.

    Raises:
        ValueError: If a rate is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Chen et al. 2023, "Symbolic discovery of optimization algorithms", program 1.

    >>> import torch
    >>> opt, params = Lion(lr=0.1), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01])}, opt.init(params), params)[0]
    {'w': tensor([0.9000, 1.1000])}
    """

    acts_on = "elements"
    moments = ("exp_avg",)
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-4)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.99), validator=pair_of_rates())
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        done = kernels.lion(columns, rates, self.maximize, self.donated)
        return super().step(columns, step, rates) if done is None else done

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, *, lr: Any, beta1: Any, beta2: Any, weight_decay: Any
    ) -> tuple[Tensor, Tensor]:
        g = along(g, self.maximize)
        u = sign(mean(m, g, beta1))
        return descend(shrink(p, lr, weight_decay), u, lr), mean(m, g, beta2)
