"""Lion: the sign of an interpolated momentum."""

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
    """Step by the sign of a momentum, with decoupled weight decay: ``optax.lion``.

        u = sign(β₁ m + (1 - β₁) g)
        p ← (1 - η λ) p - η u
        m ← β₂ m + (1 - β₂) g

    Every element moves by η, whatever the size of its gradient, so that ``lr`` is 3 to 10 times smaller than Adam's, and
    ``weight_decay`` as many times larger.

    Args:
        lr: η, a number, a schedule or a 0-d tensor, as are both ``betas`` and ``weight_decay``.
        betas: (β₁, β₂), the shares of m in the direction, and of m that stay.
        weight_decay: λ.
        maximize: Whether to ascend.
        donated: Set by ``donate``.

    State:
        ``step``, the number of updates made; ``exp_avg`` m.

    Raises:
        ValueError: For rates below 0 or not finite, and betas outside 0 ≤ β < 1; from ``update`` as ``SGD``.

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
