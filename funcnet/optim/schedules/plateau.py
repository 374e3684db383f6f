"""A rate that falls when a metric stops improving: a pure function of the metrics so far, summarized in a state."""

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
    """Multiply the rate by ``factor`` when a metric has not improved for ``patience`` updates.

        better = metric < best (1 - threshold)
        best ← metric, bad ← 0                              if better
        bad  ← bad + 1                                      otherwise
        rate ← max(factor · rate, min_lr), bad ← 0          if bad > patience; then a cooldown begins

    With ``threshold_mode="abs"``, better is metric < best - threshold. With ``mode="max"`` it is metric > best (1 + threshold),
    or best + threshold. NaN is never better. Call ``update`` with each new metric, usually once per epoch with the validation
    loss.

    All methods are pure and accept tensors: they can be compiled, and mapped with ``torch.func.vmap``. Pass the rate to an
    optimizer with ``opt.replace(lr=float(plateau.rate(state)))``; a compiled step is then compiled again after each reduction. To
    compile once for all rates, give the optimizer a tensor, ``lr = torch.tensor(0.1)`` in ``SGD(lr=lr)``, and call
    ``lr.copy_(plateau.rate(state))`` between steps.

    Args:
        lr: Initial rate, at least 0.
        mode: Whether the metric should fall, ``"min"``, or rise, ``"max"``.
        factor: Factor by which the rate is reduced, at least 0 and below 1.
        patience: Number of updates without improvement that are tolerated; the next one reduces the rate.
        threshold: Smallest improvement that counts, at least 0.
        threshold_mode: Whether ``threshold`` is relative to the best metric, ``"rel"``, or absolute, ``"abs"``.
        cooldown: Number of updates after a reduction that never count as bad.
        min_lr: Lowest rate.
        eps: Smallest reduction; a smaller one is skipped.

    State:
        rate: Current rate, 0-d float64.
        best: Best metric so far, 0-d float64.
        bad: Number of updates since the last improvement or reduction, 0-d int64.
        cooldown: Number of updates left in the cooldown, 0-d int64.

    Raises:
        ValueError: From ``update``, if the metric is not a number or a 0-d tensor, or if the state has another form.

    References:
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
        """Return the state before the first metric."""
        worst = torch.inf if self.mode == "min" else -torch.inf
        zero = torch.zeros((), dtype=torch.int64)
        rate, best = torch.tensor((self.lr, worst), dtype=torch.float64)
        return {"rate": rate, "best": best, "bad": zero, "cooldown": zero.clone()}

    def update(self, metric: Any, state: State) -> State:
        """Return the state after another metric.

        Args:
            metric: A number or a 0-d tensor.
            state: The state, as ``init`` and ``update`` return it.
        """
        now = self._check_metric(metric, state)
        better, waits = self._is_better(now, state["best"]), state["cooldown"] > 0
        bad = torch.where(better | waits, 0, state["bad"] + 1)
        reduces = bad > self.patience
        cooldown = torch.where(reduces, self.cooldown, state["cooldown"] - waits.to(torch.int64))
        return {
            "rate": torch.where(reduces, self._reduce(state["rate"]), state["rate"]),
            "best": torch.where(better, now, state["best"]),
            "bad": torch.where(reduces, 0, bad),
            "cooldown": cooldown,
        }

    def rate(self, state: State) -> Tensor:
        """Return the current rate, a 0-d float64 tensor.

        Args:
            state: The state, as ``init`` and ``update`` return it.
        """
        return self._fitting(state)["rate"]

    def factor_of(self, state: State) -> Tensor:
        """Return the current rate divided by the initial rate, a 0-d float64 tensor.

        Args:
            state: The state, as ``init`` and ``update`` return it.
        """
        return self.rate(state) / self.lr

    def _is_better(self, now: Tensor, best: Tensor) -> Tensor:
        sign = -1.0 if self.mode == "min" else 1.0
        bound = best * (1.0 + sign * self.threshold) if self.threshold_mode == "rel" else best + sign * self.threshold
        return now < bound if self.mode == "min" else now > bound

    def _reduce(self, rate: Tensor) -> Tensor:
        new = (rate * self.factor).clamp(min=self.min_lr)
        return torch.where(rate - new > self.eps, new, rate)

    def _check_metric(self, metric: Any, state: State) -> Tensor:
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
            raise value_error(self, f"state must be a dict of {', '.join(names)}, as init returns it", describe(state))
        return state
