"""A rate that falls when a metric stops improving: a pure function of the metrics so far, which a state sums up."""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import describe, is_number, number, one_of, value_error, whole
from funcnet.value import Value, frozen

State = dict[str, Tensor]


def _is_number(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.dim()


@frozen
class ReduceOnPlateau(Value):
    """Rate that is multiplied by ``factor`` when a metric has not improved for ``patience`` updates: ``ReduceLROnPlateau``.

        better = metric < best (1 - threshold)              best ← metric, bad ← 0; otherwise bad ← bad + 1
        bad > patience                                      rate ← max(factor · rate, min_lr), and a cooldown begins

    With ``"abs"`` better is metric < best - threshold, and with ``"max"`` metric > best (1 + threshold) or best + threshold. Most
    people update it once an epoch, with the loss on validation data. NaN is not better than anything.

    All verbs are pure and take tensors: they may be compiled, and mapped with ``torch.func.vmap``. An optimizer gets the rate
    with ``opt.replace(lr=float(plateau.rate(state)))``; a step with that optimizer is compiled again after each reduction. One
    program serves all rates where the optimizer holds a tensor of yours, ``lr = torch.tensor(0.1)`` in ``SGD(lr=lr)``: compile
    the step once, and set ``lr.copy_(plateau.rate(state))`` between steps.

    Args:
        lr: First rate.
        mode: ``"min"`` or ``"max"``: whether the metric should fall or rise.
        factor: Factor of a reduction, at least 0 and below 1.
        patience: Number of updates without improvement that change nothing.
        threshold: How much better the metric must be than the best so far.
        threshold_mode: Whether ``threshold`` is relative to the best, ``"rel"``, or ``"abs"``.
        cooldown: Number of updates after a reduction that never count as bad.
        min_lr: Least rate.
        eps: Least change; a reduction by less does not take place.

    State:
        ``rate`` and ``best``, 0-d float64 tensors; ``bad`` and ``cooldown``, 0-d int64 tensors: numbers of updates.

    Raises:
        ValueError: For numbers outside their ranges; from ``update`` for a metric that is no number or 0-d tensor.

    Source:
        ``torch.optim.lr_scheduler.ReduceLROnPlateau``; ``optax.contrib.reduce_on_plateau``.

    >>> plateau = ReduceOnPlateau(0.1, patience=1)
    >>> state = plateau.init()
    >>> for loss in (1.0, 0.5, 0.5, 0.5):
    ...     state = plateau.update(loss, state)
    >>> round(float(plateau.rate(state)), 4)
    0.01
    """

    lr: float = field(default=1e-3, validator=number(0.0))
    mode: str = field(default="min", validator=one_of("min", "max"))
    factor: float = field(default=0.1, validator=number(0.0, below=1.0))
    patience: int = field(default=10, validator=whole(0))
    threshold: float = field(default=1e-4, validator=number(0.0))
    threshold_mode: str = field(default="rel", validator=one_of("rel", "abs"))
    cooldown: int = field(default=0, validator=whole(0))
    min_lr: float = field(default=0.0, validator=number(0.0))
    eps: float = field(default=1e-8, validator=number(0.0))

    def init(self) -> State:
        """Make the state before the first metric."""
        worst = torch.inf if self.mode == "min" else -torch.inf
        zero = torch.zeros((), dtype=torch.int64)
        rate, best = torch.tensor((self.lr, worst), dtype=torch.float64)
        return {"rate": rate, "best": best, "bad": zero, "cooldown": zero.clone()}

    def update(self, metric: Any, state: State) -> State:
        """Return the state after another metric, a number or a 0-d tensor."""
        now = self._checked(metric, state)
        better, waits = self._is_better(now, state["best"]), state["cooldown"] > 0
        bad = torch.where(better | waits, 0, state["bad"] + 1)
        reduces = bad > self.patience
        cooldown = torch.where(reduces, self.cooldown, state["cooldown"] - waits.to(torch.int64))
        return {
            "rate": torch.where(reduces, self._reduced(state["rate"]), state["rate"]),
            "best": torch.where(better, now, state["best"]),
            "bad": torch.where(reduces, 0, bad),
            "cooldown": cooldown,
        }

    def rate(self, state: State) -> Tensor:
        """Return the rate in use, a 0-d float64 tensor: ``opt.replace(lr=float(plateau.rate(state)))``."""
        return self._fitting(state)["rate"]

    def factor_of(self, state: State) -> Tensor:
        """Return the rate as a part of the first one, a 0-d float64 tensor."""
        return self.rate(state) / self.lr

    def _is_better(self, now: Tensor, best: Tensor) -> Tensor:
        sign = -1.0 if self.mode == "min" else 1.0
        bound = best * (1.0 + sign * self.threshold) if self.threshold_mode == "rel" else best + sign * self.threshold
        return now < bound if self.mode == "min" else now > bound

    def _reduced(self, rate: Tensor) -> Tensor:
        new = (rate * self.factor).clamp(min=self.min_lr)
        return torch.where(rate - new > self.eps, new, rate)

    def _checked(self, metric: Any, state: State) -> Tensor:
        like = self._fitting(state)["best"]
        if isinstance(metric, Tensor) and not metric.dim() and not metric.is_complex() and metric.dtype is not torch.bool:
            return metric.detach().to(like)
        is_float = isinstance(metric, float) and not isinstance(metric, Tensor)  # NaN and infinity too
        if not is_float and not is_number(metric):
            raise value_error(self, "metric must be a number, or a 0-d tensor", describe(metric))
        return torch.full_like(like, float(metric))

    def _fitting(self, state: State) -> State:
        names = ["rate", "best", "bad", "cooldown"]
        if not isinstance(state, dict) or {*state} != {*names} or not all(map(_is_number, state.values())):
            raise value_error(self, f"state must be a dict of {', '.join(names)}, as init makes it", describe(state))
        return state
