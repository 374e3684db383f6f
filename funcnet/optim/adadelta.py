"""Adadelta: steps scaled by the size of recent steps, which needs no learning rate."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.formulas import add_decay, along, descend, mean_square
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class Adadelta(MomentOptimizer):
    """Steps scaled by the root mean square of recent steps: ``torch.optim.Adadelta``.

        g ← ±g + λ p      v ← ρ v + (1 - ρ) g²
        d = g √(a + ε) / √(v + ε)      a ← ρ a + (1 - ρ) d²
        p ← p - η d

    Args:
        lr: η, a factor without unit, since d has the unit of p. Like ``rho`` and ``weight_decay``, it is a number, a schedule of
            the number of updates made, or a 0-d tensor.
        rho: ρ, the decay rate of v and a.
        eps: ε, added to both; the first steps are about √ε.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        square_avg: v, like params.
        acc_delta: a, like params.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if ``rho`` is outside 0 ≤ ρ < 1.

    References:
        Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1.

    >>> import torch
    >>> opt, params = Adadelta(eps=0.01), {"w": torch.ones(1)}
    >>> opt.update({"w": torch.tensor([2.0])}, opt.init(params), params)[0]
    {'w': tensor([0.6877])}
    """

    acts_on = "elements"
    moments = ("square_avg", "acc_delta")
    rates_below = (inf, 1.0, inf)

    lr: Rate = rate_field(1.0)
    rho: Rate = rate_field(0.9, below=1.0)
    eps: float = field(default=1e-6, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "rho": self.rho, "weight_decay": self.weight_decay}

    def formula(
        self, p: Tensor, g: Tensor, v: Tensor, a: Tensor, *, lr: Any, rho: Any, weight_decay: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = add_decay(along(g, self.maximize), p, weight_decay)
        v = mean_square(v, g, rho)
        d = g * (a + self.eps).sqrt() / (v + self.eps).sqrt()
        return descend(p, d, lr), v, mean_square(a, d, rho)
