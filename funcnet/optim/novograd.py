"""NovoGrad: momentum over gradients divided by the norm of each tensor's gradient."""

from collections.abc import Sequence
from math import inf
from typing import Any

from attrs import field
from torch import Size, Tensor

from funcnet.errors import flag, number
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along, where
from funcnet.optim.moment_rule import Numbers
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, pair_of_rates, rate_field
from funcnet.value import frozen


@frozen
class NovoGrad(MomentOptimizer):
    """Momentum of gradients that are normalized by a running norm of each tensor: ``optax.novograd``.

        n ← β₂ n + (1 - β₂) ‖g‖²                        n = ‖g‖² at t = 1; -g in place of g with maximize
        m ← β₁ m + g / (√(n + ε₀) + ε) + λ p
        p ← p - η m

    The second moment is one number for each tensor: the state takes half the memory of Adam's.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``betas`` and ``weight_decay``, it is a number, a schedule of the number
            of updates made, or a 0-d tensor.
        betas: (β₁, β₂), the decay rates of m and n.
        eps: ε, added to the root, in the unit of g.
        weight_decay: λ: λ p is added to the normalized gradient.
        donated: Whether params and state may be overwritten; set by ``donate``.
        eps_root: ε₀, added under the root, in the unit of g².
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        norm_sq: n, a 0-d tensor for each param.

    Raises:
        ValueError: If a rate or an eps is negative or not finite, or if a beta is outside 0 ≤ β < 1.

    References:
        Ginsburg et al. 2019, "Stochastic gradient methods with layer-wise adaptive moments for training of deep networks",
        algorithm 1.

    >>> import torch
    >>> opt, params = NovoGrad(lr=0.1), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([3.0, 4.0])}, opt.init(params), params)[0]
    {'w': tensor([0.9400, 0.9200])}
    """

    acts_on = "leaves"
    moments = ("exp_avg", "norm_sq")
    rates_below = (inf, 1.0, 1.0, inf)

    lr: Rate = rate_field(1e-3)
    betas: tuple[Rate, Rate] = rate_field((0.9, 0.25), validator=pair_of_rates())
    eps: float = field(default=1e-6, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    eps_root: float = field(default=0.0, kw_only=True, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "beta1": self.betas[0], "beta2": self.betas[1], "weight_decay": self.weight_decay}

    def moment_shape(self, name: str, shape: Size) -> Sequence[int]:
        return () if name == "norm_sq" else shape

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        return {**rates, "beta2": where(t == 1, 0.0, rates["beta2"])}, scalars

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, n: Tensor, *, lr: Any, beta1: Any, beta2: Any, weight_decay: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g = along(g, self.maximize)
        n = beta2 * n + (1 - beta2) * g.square().sum()
        m = beta1 * m + add_decay(g / ((n + self.eps_root).sqrt() + self.eps), p, weight_decay)
        return p - lr * m, m, n
