"""LARS: gradient descent with a step proportional to the norm of each tensor."""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.errors import flag, number
from funcnet.optim.formulas import add_decay, along, trust_ratio
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, is_zero, rate_field
from funcnet.value import frozen


@frozen
class LARS(MomentOptimizer):
    """Gradient descent with momentum, where steps are scaled to the norm of each tensor, for large batches: ``optax.lars``.

        g ← ±g + λ p
        b ← μ b + η κ ‖p‖ / (‖g‖ + ε) g                 κ ‖p‖ / (‖g‖ + ε) is 1 where one of the norms is 0
        p ← p - b,      nesterov: p ← p - (η κ ‖p‖ / (‖g‖ + ε) g + μ b)

    Args:
        lr: η, the learning rate, a factor without unit. Like ``weight_decay`` and ``momentum``, it is a number, a schedule of the
            number of updates made, or a 0-d tensor. Use large rates: with the default κ, a step moves a tensor by η thousandths
            of its norm.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        trust_coefficient: κ, the norm of a step relative to the norm of p, for η = 1.
        eps: ε, added to the norm of the gradient.
        momentum: μ, the decay rate of the buffer b; without a buffer if it is 0.
        nesterov: Whether the step looks ahead along the buffer.
        donated: Whether params and state may be overwritten; set by ``donate``.
        maximize: Whether to maximize the loss.

    State:
        step: Number of updates made.
        momentum_buffer: b, like params; absent if ``momentum`` is 0.

    Raises:
        ValueError: If an argument is negative or not finite.

    References:
        You, Gitman & Ginsburg 2017, "Large batch training of convolutional networks", algorithm 1.

    >>> import torch
    >>> opt, params = LARS(lr=1.0, trust_coefficient=0.1), {"w": torch.tensor([3.0, 4.0])}
    >>> opt.update({"w": torch.tensor([7.0, 0.0])}, opt.init(params), params)[0]  # a tenth of the norm
    {'w': tensor([2.5000, 4.0000])}
    """

    acts_on = "leaves"

    lr: Rate = rate_field(1.0)
    weight_decay: Rate = rate_field(0.0)
    trust_coefficient: float = field(default=1e-3, validator=number(0.0))
    eps: float = field(default=0.0, validator=number(0.0))
    momentum: Rate = rate_field(0.9)
    nesterov: bool = field(default=False, validator=flag)
    maximize: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def moments(self) -> tuple[str, ...]:
        return () if is_zero(self.momentum) else ("momentum_buffer",)

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        return {"lr": self.lr, "weight_decay": self.weight_decay, "momentum": self.momentum}

    def formula(self, p: Tensor, g: Tensor, *bs: Tensor, lr: Any, weight_decay: Any, momentum: Any) -> tuple[Tensor, ...]:
        g = add_decay(along(g, self.maximize), p, weight_decay)
        u = lr * trust_ratio(p, g, self.trust_coefficient, self.eps) * g
        new = [momentum * b + u for b in bs]
        step = u + momentum * new[0] if self.nesterov and new else (new or [u])[0]
        return p - step, *new
