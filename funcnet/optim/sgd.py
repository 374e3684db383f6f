"""SGD, with the formula of torch.optim: t = 1, 2, ... counts the updates, p is a parameter and g its gradient.

    g ← ±g + λ p                                 λ weight_decay; minus with maximize
    b ← μ b + (1 - τ) g,  at t = 1: b ← g        μ momentum, τ dampening; with averaged, from 0: b ← μ b + (1 - μ) g
    p ← p - η b,          nesterov: p ← p - η (g + μ b)                      η lr

With ``donated``, set by ``donate``, the results are the same, but they can overwrite params and state.
"""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import flag, value_error
from funcnet.kernels import optim as kernels
from funcnet.kernels import optim_steps
from funcnet.kernels.optim_rows import RowsStep, sgd_in_rows
from funcnet.optim.columns import Columns
from funcnet.optim.moments import MomentOptimizer
from funcnet.optim.rates import Rate, Rates, at, fixed, is_rate, is_zero, rate_field
from funcnet.value import frozen


def _nesterov(value: Any, attribute: Any, got: Any) -> None:
    flag(value, attribute, got)
    if got and (is_zero(value.momentum) or not is_zero(value.dampening)):
        came = f"momentum={value.momentum!r} and dampening={value.dampening!r}"
        raise value_error("SGD", "nesterov needs a momentum above 0 and no dampening", came)


def _averaged(value: Any, attribute: Any, got: Any) -> None:
    flag(value, attribute, got)
    if got and (value.nesterov or not is_zero(value.dampening)):
        came = f"nesterov={value.nesterov!r} and dampening={value.dampening!r}"
        raise value_error("SGD", "averaged sets the dampening to the momentum, and excludes nesterov and dampening", came)


def _from_second(now: Any, dampening: Any) -> Any:
    """Return the dampening, 0 at the first step. An invalid rate is returned unchanged and raises later."""
    if isinstance(now, Tensor):
        return dampening * (now > 0).to(torch.float64)
    return 0.0 if now == 0 and is_rate(dampening) else dampening


@frozen
class SGD(MomentOptimizer):
    """Stochastic gradient descent, optionally with momentum: ``torch.optim.SGD``.

        g ← ±g + λ p                                   minus with maximize
        b ← μ b + (1 - τ) g                            at the first update b ← g
        p ← p - η b,      nesterov: p ← p - η (g + μ b)

    Args:
        lr: η, the learning rate, in the unit of p / g. Like ``momentum``, ``dampening`` and ``weight_decay``, it is a number, a
            schedule of the number of updates made, or a 0-d tensor.
        momentum: μ, the decay rate of the buffer b; without a buffer if it is 0.
        dampening: τ, used from the second update on.
        weight_decay: λ, the coefficient of an L2 penalty, in the unit of g / p.
        nesterov: Whether to step by g + μ b instead of b.
        maximize: Whether to maximize the loss.
        averaged: Whether b is a running average that starts at 0, with 1 - μ in place of 1 - τ at every update.
        donated: Whether params and state may be overwritten; set by ``donate``.
        fused: Whether a single kernel makes the whole step of a tensor, with slightly different rounding: on the CPU, in float32
            or float64, and in eager mode. It pays off with ``donate``.

    State:
        step: Number of updates made.
        momentum_buffer: b, like params; absent if ``momentum`` is 0.

    Raises:
        ValueError: If a rate is negative or not finite, if ``nesterov`` is set without momentum or with dampening, or if
            ``averaged`` is combined with either.

    References:
        ``torch.optim.SGD``; for ``nesterov`` Sutskever, Martens, Dahl & Hinton 2013, "On the importance of initialization and
        momentum in deep learning".

    >>> SGD(lr=0.1, momentum=0.9).replace(nesterov=True)
    SGD(lr=0.1, momentum=0.9, nesterov=True)
    """

    acts_on = "elements"

    lr: Rate = rate_field(1e-3)
    momentum: Rate = rate_field(0.0)
    dampening: Rate = rate_field(0.0)
    weight_decay: Rate = rate_field(0.0)
    nesterov: bool = field(default=False, validator=_nesterov)
    maximize: bool = field(default=False, validator=flag)
    averaged: bool = field(default=False, validator=_averaged)
    fused: bool = field(default=False, kw_only=True, validator=flag)

    @property
    def moments(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if not is_zero(self.momentum) else ()

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        momentum = {"momentum": self.momentum, "dampening": self.momentum if self.averaged else self.dampening}
        return {"lr": self.lr, **momentum, "weight_decay": self.weight_decay}

    def constant_rates(self) -> Rates | None:
        if self.averaged:
            return fixed(self.lr, self.momentum, self.momentum, self.weight_decay)
        return fixed(self.lr, self.momentum, 0.0, self.weight_decay) if is_zero(self.dampening) else None

    def rates_at(self, step: Tensor) -> Rates:
        lr, momentum, dampening, decay = at(step, self.lr, self.momentum, self.dampening, self.weight_decay)
        if self.averaged:
            return lr, momentum, momentum, decay
        if not is_zero(self.dampening):
            dampening = _from_second(kernels.read(step), dampening)
        return lr, momentum, dampening, decay

    def rows_step(self, columns: Columns) -> RowsStep | None:
        rates = None if self.averaged else self._fixed
        how = {"nesterov": self.nesterov, "maximize": self.maximize}
        return None if rates is None else sgd_in_rows(columns, rates, self.donated, self.fused, **how)

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        if self.fused:
            done = optim_steps.sgd(columns, rates, self.donated, nesterov=self.nesterov, maximize=self.maximize)
            if done is not None:
                return done
        (ps, gs, *bs), (lr, momentum, _, decay) = columns, rates
        if self.maximize:
            gs = kernels.scale_each(gs, -1.0)
        if not is_zero(self.weight_decay):
            gs = kernels.add_each(gs, ps, decay)
        if not bs:
            return [kernels.add_each(ps, gs, -lr, ps if self.donated else None)]
        if self.averaged or self.nesterov or not is_zero(self.dampening):
            return self._along(ps, gs, bs[0], rates)
        return kernels.descend(ps, gs, bs[0], lr, momentum, self.donated)

    def _along(self, ps: Sequence[Tensor], gs: Sequence[Tensor], bs: Sequence[Tensor], rates: Rates) -> Columns:
        lr, momentum, dampening, _ = rates
        out = (ps, bs) if self.donated else (None, None)
        if self.averaged:
            bs = kernels.lerp_each(bs, gs, 1 - momentum, out[1])
        else:
            damped = gs if is_zero(self.dampening) else kernels.scale_each(gs, 1 - dampening)
            bs = kernels.add_each(damped, bs, momentum, out[1])
        return [kernels.add_each(ps, kernels.add_each(gs, bs, momentum) if self.nesterov else bs, -lr, out[0]), bs]
