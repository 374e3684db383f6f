"""ASGD: gradient descent, and the average of its last params."""

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
    """Descend with a decaying rate, and average the params from step ``t0`` on: ``torch.optim.ASGD``.

        g ← ±g + κ p      ηₜ = η / (1 + λ η (t - 1))^α      μ = 1 / max(1, t - 1 - t₀)
        p ← (1 - λ ηₜ) p - ηₜ g
        a ← a + μ (p - a)

    The averaged params, to evaluate the net with, are ``state["ax"]``.

    Args:
        lr: η, a number, a schedule or a 0-d tensor, as are ``lambd``, ``alpha`` and ``weight_decay``.
        lambd: λ, the decay of params and of the rate.
        alpha: α, the power with which the rate decays.
        t0: t₀, the step after which a is an average; until then it is p.
        weight_decay: κ, added to the gradient times p.
        maximize: Whether to ascend.
        donated: Set by ``donate``.

    State:
        ``step``, the number of updates made; ``ax`` a. The rate and μ are computed from the step, where torch keeps them.

    Raises:
        ValueError: For arguments below 0 or not finite; from ``update`` as ``Adam``.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Bottou 2010, "Large-scale machine
        learning with stochastic gradient descent", for the rate.

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
