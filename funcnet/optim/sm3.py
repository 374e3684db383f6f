"""SM3: Adagrad with its sums stored as one number for each row and column."""

from collections.abc import Sequence
from math import inf
from typing import Any

from attrs import field
from torch import Size, Tensor

from funcnet.errors import flag, number
from funcnet.kernels.axis_maxima import least_bound, maxima
from funcnet.optim.formulas import along, descend, mean
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, rate_field
from funcnet.value import frozen


@frozen
class SM3(MomentOptimizer):
    """Adagrad with upper bounds of the sums of squares, stored as one number for each row and column: ``optax.sm3``.

        s = g² + min(c₁, ..., cₙ)                       c_i broadcast along all axes but i
        m ← μ m + (1 - μ) g / √(s + ε)                  0 in place of g / √(s + ε) where s is 0
        p ← p - η m                                     -g in place of g with maximize
        c_i ← max of s over all axes but i

    For a matrix of n rows and k columns the sums take n + k numbers instead of n k. Vectors have Adagrad's sums.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``momentum``, it is a number, a schedule of the number of updates made,
            or a 0-d tensor.
        momentum: μ, the decay rate of m.
        donated: Whether params and state may be overwritten; set by ``donate``.
        eps: ε, added under the root, in the unit of g².
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        exp_avg: m, like params.
        bounds: c₁, ..., cₙ concatenated into one vector for each param.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if ``momentum`` is outside 0 ≤ μ < 1.

    References:
        Anil, Gupta, Koren & Singer 2019, "Memory-efficient adaptive optimization", algorithm SM3-II, with momentum as in section
        4.

    >>> import torch
    >>> SM3().init({"w": torch.ones(3, 2)})["bounds"]["w"].shape
    torch.Size([5])
    """

    acts_on = "leaves"
    moments = ("exp_avg", "bounds")
    rates_below = (inf, 1.0)

    lr: Rate = rate_field(0.1)
    momentum: Rate = rate_field(0.9, below=1.0)
    eps: float = field(default=1e-8, kw_only=True, validator=number(0.0))
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "momentum": self.momentum}

    def moment_shape(self, name: str, shape: Size) -> Sequence[int]:
        return (sum(shape),) if name == "bounds" and len(shape) > 1 else shape

    def formula(
        self, p: Tensor, g: Tensor, m: Tensor, bounds: Tensor, *, lr: Any, momentum: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not p.numel():
            return p, m, bounds
        g = along(g, self.maximize)
        s = g * g + least_bound(bounds, p.shape)
        step = (g / (s + self.eps).sqrt()).where(s != 0, 0.0)
        m = mean(m, step, momentum)
        return descend(p, m, lr), m, maxima(s)
