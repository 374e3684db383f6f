"""Adagrad: steps divided by the root of the sum of all squared gradients."""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.kernels import optim_in_place as kernels
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, rate_field
from funcnet.value import frozen


@frozen
class Adagrad(MomentOptimizer):
    """Gradient descent divided by the root of the sum of all squared gradients: ``torch.optim.Adagrad``.

        g ← ±g + λ p      s ← s + g²
        p ← p - η / (1 + (t - 1) κ) · g / (√s + ε)

    Elements with few or small gradients keep large steps, which suits sparse features.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``lr_decay`` and ``weight_decay``, it is a number, a schedule of the
            number of updates made, or a 0-d tensor.
        lr_decay: κ, how fast the rate decays, per update.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        initial_accumulator_value: The initial value of s, in the unit of g².
        eps: ε, added to the denominator, in the unit of g.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        sum: s, like params.

    Raises:
        ValueError: If an argument is negative or not finite.

    References:
        Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization", figure 1 with
        diagonal matrices.

    >>> import torch
    >>> opt, params = Adagrad(lr=0.1), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01])}, opt.init(params), params)[0]
    {'w': tensor([0.9000, 1.1000])}
    """

    acts_on = "elements"
    moments = ("sum",)

    lr: Rate = rate_field(1e-2)
    lr_decay: Rate = rate_field(0.0)
    weight_decay: Rate = rate_field(0.0)
    initial_accumulator_value: float = field(default=0.0, validator=number(0.0))
    eps: float = field(default=1e-10, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "lr_decay": self.lr_decay, "weight_decay": self.weight_decay}

    def initial(self, name: str, p: Tensor) -> Tensor:
        return super().initial(name, p) + self.initial_accumulator_value

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {"rate": rates["lr"] / (1 + (t - 1) * rates["lr_decay"]), "decay": rates["weight_decay"]}, scalars

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        done = kernels.adagrad(columns, step, rates, self.eps, self.maximize, self.donated)
        return super().step(columns, step, rates) if done is None else done

    def formula(self, p: Tensor, g: Tensor, s: Tensor, *, rate: Any, decay: Any) -> tuple[Tensor, Tensor]:
        g = add_decay(along(g, self.maximize), p, decay)
        s = s + g * g
        return p - rate * g / (s.sqrt() + self.eps), s
