"""ASGD: gradient descent that also averages the params of the last steps."""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, descend, where
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class ASGD(MomentOptimizer):
    """Gradient descent with a decaying rate and an average of the params after step ``t0``: ``torch.optim.ASGD``.

        g ← ±g + κ p      ηₜ = η / (1 + λ η (t - 1))^α      μ = 1 / max(1, t - 1 - t₀)
        p ← (1 - λ ηₜ) p - ηₜ g
        a ← a + μ (p - a)

    Evaluate the net with the averaged params, ``state["ax"]``.

    Args:
        lr: η, the initial learning rate, in the unit of p / g. Like ``lambd``, ``alpha`` and ``weight_decay``, it is a number, a
            schedule of the number of updates made, or a 0-d tensor.
        lambd: λ, the decay of the params and of the rate, in the unit of 1 / ``lr``.
        alpha: α, the exponent of the decay of the rate.
        t0: t₀, the step after which a is an average; before it, a is p.
        weight_decay: κ, the coefficient of an L2 penalty, in the unit of g / p.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made. The rate and μ are computed from it; torch stores them.
        ax: a, like params.

    Raises:
        ValueError: If an argument is negative or not finite.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; for the rate Bottou 2010, "Large-scale
        machine learning with stochastic gradient descent".

    >>> import torch
    >>> opt, params = ASGD(lr=0.1, lambd=0.0, t0=0), {"w": torch.ones(1)}
    >>> state = opt.init(params)
    >>> for g in (1.0, 1.0, 1.0):
    ...     params, state = opt.update({"w": torch.tensor([g])}, state, params)
    >>> params["w"], state["ax"]["w"]
    (tensor([0.7000]), tensor([0.7500]))
    """

    acts_on = "elements"
    moments = ("ax",)

    lr: Rate = rate_field(1e-2)
    lambd: Rate = rate_field(1e-4)
    alpha: Rate = rate_field(0.75)
    t0: float = field(default=1e6, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "lambd": self.lambd, "alpha": self.alpha, "weight_decay": self.weight_decay}

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        lr, lambd, alpha, decay = rates.values()
        eta, averaged = lr / (1 + lambd * lr * (t - 1)) ** alpha, t - 1 - self.t0
        return {"eta": eta, "stays": 1 - lambd * eta, "mu": 1 / where(averaged > 1, averaged, 1.0), "decay": decay}, scalars

    def formula(self, p: Tensor, g: Tensor, a: Tensor, *, eta: Any, stays: Any, mu: Any, decay: Any) -> tuple[Tensor, Tensor]:
        g = add_decay(along(g, self.maximize), p, decay)
        p = descend(stays * p, g, eta)
        return p, a.lerp(p, mu)
