"""SignSGD, and Signum with momentum: steps in the direction of the gradient's sign."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag
from funcnet.optim.formulas import along, descend, mean, shrink, sign
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, is_zero, rate_field
from funcnet.value import frozen


@frozen
class SignSGD(MomentOptimizer):
    """Sign descent along the gradient, or along its running average: ``optax.sign_sgd``, and ``optax.signum`` with momentum.

        m ← μ m + (1 - μ) g                        -g in place of g with maximize
        p ← (1 - η λ) p - η sign(m)

    Args:
        lr: η, the learning rate, in the unit of p. Like ``momentum`` and ``weight_decay``, it is a number, a schedule of the
            number of updates made, or a 0-d tensor.
        momentum: μ, the decay rate of m; without an average if it is 0.
        weight_decay: λ, in the unit of 1 / ``lr``: each update multiplies p by 1 - η λ.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params; absent if ``momentum`` is 0.

    Raises:
        ValueError: If a rate is negative or not finite, or if ``momentum`` is outside 0 ≤ μ < 1.

    References:
        Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems", algorithm 1, and 2 for momentum.

    >>> import torch
    >>> opt, params = SignSGD(lr=0.1), {"w": torch.ones(3)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01, 0.0])}, opt.init(params), params)[0]
    {'w': tensor([0.9000, 1.1000, 1.0000])}
    """

    acts_on = "elements"
    rates_below = (inf, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    momentum: Rate = rate_field(0.0, below=1.0)
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def moments(self) -> tuple[str, ...]:
        return () if is_zero(self.momentum) else ("exp_avg",)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}

    def formula(self, p: Tensor, g: Tensor, *ms: Tensor, lr: Any, momentum: Any, weight_decay: Any) -> tuple[Tensor, ...]:
        g = along(g, self.maximize)
        new = [mean(m, g, momentum) for m in ms]
        return descend(shrink(p, lr, weight_decay), sign((new or [g])[0]), lr), *new
