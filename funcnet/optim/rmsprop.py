"""RMSprop: gradients divided by the root of their mean square."""

from math import inf
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.kernels import optim_in_place as kernels
from funcnet.optim.columns import Columns
from funcnet.optim.formulas import add_decay, along
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, is_zero, rate_field
from funcnet.value import frozen


@frozen
class RMSprop(MomentOptimizer):
    """Gradient descent divided by the root of a running mean of squares: ``torch.optim.RMSprop``.

        g ← ±g + λ p      v ← α v + (1 - α) g²
        b ← μ b + g / (√v + ε)
        p ← p - η b                     centered: a ← α a + (1 - α) g, and v - a² in place of v in the denominator

    If rounding makes v - a² negative, it is replaced with 0.

    Args:
        lr: η, the learning rate, in the unit of p. Like ``alpha``, ``weight_decay`` and ``momentum``, it is a number, a schedule
            of the number of updates made, or a 0-d tensor.
        alpha: α, the decay rate of v and a.
        eps: ε, added to the root, in the unit of g.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        momentum: μ, the decay rate of the buffer b; without a buffer if it is 0.
        centered: Whether to divide by the standard deviation of the gradient.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        square_avg: v, like params.
        momentum_buffer: b, like params; absent if ``momentum`` is 0.
        grad_avg: a, like params, with ``centered``.

    Raises:
        ValueError: If a rate or ``eps`` is negative or not finite, or if ``alpha`` is outside 0 ≤ α < 1.

    References:
        Tieleman & Hinton 2012, "Neural networks for machine learning", lecture 6.5; for ``centered`` Graves 2013, "Generating
        sequences with recurrent neural networks", eq. 38 to 41.

    >>> import torch
    >>> opt, params = RMSprop(lr=0.1, alpha=0.75), {"w": torch.ones(2)}
    >>> opt.update({"w": torch.tensor([5.0, -0.01])}, opt.init(params), params)[0]
    {'w': tensor([0.8000, 1.2000])}
    """

    acts_on = "elements"
    rates_below = (inf, 1.0, inf, inf)

    lr: Rate = rate_field(1e-2)
    alpha: Rate = rate_field(0.99, below=1.0)
    eps: float = field(default=1e-8, validator=number(0.0))
    weight_decay: Rate = rate_field(0.0)
    momentum: Rate = rate_field(0.0)
    centered: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def moments(self) -> tuple[str, ...]:
        buffers = () if is_zero(self.momentum) else ("momentum_buffer",)
        return ("square_avg", *buffers, "grad_avg") if self.centered else ("square_avg", *buffers)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "alpha": self.alpha, "weight_decay": self.weight_decay, "momentum": self.momentum}

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        done = kernels.rmsprop(columns, rates, self.eps, self.centered, self.maximize, self.donated)
        return super().step(columns, step, rates) if done is None else done

    def formula(
        self, p: Tensor, g: Tensor, v: Tensor, *others: Tensor, lr: Any, alpha: Any, weight_decay: Any, momentum: Any
    ) -> tuple[Tensor, ...]:
        g = add_decay(along(g, self.maximize), p, weight_decay)
        v = alpha * v + (1 - alpha) * g * g
        means = [alpha * a + (1 - alpha) * g for a in others[-self.centered :] if self.centered]
        square = (v - means[0] * means[0]).clamp(min=0.0) if means else v
        step = g / (square.sqrt() + self.eps)
        buffers = [] if is_zero(self.momentum) else [momentum * others[0] + step]
        return p - lr * (buffers[0] if buffers else step), v, *buffers, *means
