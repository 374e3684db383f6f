"""The learning-rate range test: train for some batches with a growing rate, and see where the loss falls and diverges."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from funcnet import random, tree
from funcnet.arguments import require_whole
from funcnet.compilation import compiled
from funcnet.contract import Params
from funcnet.errors import describe, is_number, value_error
from funcnet.flattening import Tree
from funcnet.optim.base import Optimizer
from funcnet.random.keys import Key
from funcnet.tables import aligned
from funcnet.train import TrainStep
from funcnet.value import Value, parts


class RateRange(NamedTuple):
    """The result of ``lr_range``: it prints as a table, and ``plot()`` draws it.

    Args:
        rates: Learning rate of each step taken.
        losses: Loss of each step's batch, before its update; the last one is not finite if training broke down.
        smoothed: Running average of the losses.
        diverged: Whether the test stopped because the loss grew too much or was not finite.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls fastest; ``None`` if it never falls.

        The steps after the minimum are ignored, and so is the first tenth of the steps, where the average covers few losses.
        """
        values = [value for value in self.smoothed if math.isfinite(value)]
        lowest = values.index(min(values)) if values else 0
        slopes = {i: values[i + 1] - values[i - 1] for i in range(1 + len(self.rates) // 10, lowest)}
        steepest = min(slopes, key=lambda i: slopes[i], default=0)
        return self.rates[steepest] if slopes and slopes[steepest] < 0 else None

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the rates with matplotlib.

        Args:
            ax: The axes to draw into; new ones by default.

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib import pyplot as plt  # type: ignore[import-not-found, unused-ignore]

            ax = plt.subplots()[1]
        ax.plot(self.rates, self.losses, color="0.8", linewidth=1)
        ax.plot(self.rates, self.smoothed, color="C0")
        if self.suggestion is not None:
            loss = self.smoothed[self.rates.index(self.suggestion)]
            ax.plot([self.suggestion], [loss], "o", color="C3", label=f"suggestion {self.suggestion:.2g}")
            ax.legend(frameon=False)
        finite = [value for value in self.smoothed if math.isfinite(value)]
        if finite:
            margin = 0.1 * (max(finite) - min(finite)) or 1.0
            ax.set_ylim(min(finite) - margin, max(finite) + margin)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        return ax

    def __str__(self) -> str:
        shown = range(0, len(self.rates), max(1, len(self.rates) // 10))
        rows = [tuple([f"{column[i]:.4g}" for column in (self.rates, self.losses, self.smoothed)]) for i in shown]
        lines = aligned([("lr", "loss", "smoothed"), *rows], 0)
        end = "the loss diverged" if self.diverged else "the loss did not diverge"
        found = "no suggestion" if self.suggestion is None else f"suggestion {self.suggestion:.3g}"
        return "\n".join([*lines, f"{len(self.rates)} steps, {end}: {found}"])

    def __repr__(self) -> str:
        return str(self)


class _Rate:
    """A rate that ``lr_range`` sets between steps: a function of the step, like a schedule. Compiled code reads its tensor."""

    def __init__(self) -> None:
        self.tensor = torch.zeros((), dtype=torch.float64)

    def __call__(self, step: Any) -> Tensor:
        return self.tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Rate":
        return self  # a step with ``in_backward`` copies its optimizer


Step = Callable[..., tuple[Params, Tree, Tensor]]


def lr_range(
    step: Step,
    params: Params,
    state: Tree,
    batches: Iterable[Any],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    mode: str = "exponential",
    smoothing: float = 0.9,
    early_stop_threshold: float | None = 4.0,
    rng: Key | int | None = None,
) -> RateRange:
    """Find a learning rate: train for some batches while the rate grows, and return rates, losses and a suggestion.

        rate = low (high / low)^(i / (steps - 1))    at step i; low + (high - low) i / (steps - 1) with ``mode="linear"``

    A good first rate is the ``suggestion``, where the loss falls fastest. The test trains on copies, so params and state do not
    change, even with a donated optimizer. A compiled step is compiled once more, for all rates together.

    Args:
        step: A ``train_step``, compiled or not, whose optimizer has one field ``lr``; or a function ``(params, state, x, target,
            lr=rate) -> (params, state, value)``, which gets the rate as a 0-d tensor.
        params: Params to start from.
        state: State of the optimizer to start from, ``opt.init(params)``.
        batches: Pairs (x, target), in a list or another iterable; iteration starts again when it ends.
        low: First rate.
        high: Last rate.
        steps: Number of steps, at least 2.
        mode: ``"exponential"`` or ``"linear"``, how the rate grows.
        smoothing: Decay of the running average per step, at least 0 and below 1.
        early_stop_threshold: Stop when the smoothed loss exceeds the smallest one by this factor; ``None`` to continue to
            ``high``. A loss that is not finite always ends the test.
        rng: Key or seed, for a stochastic net.

    Returns:
        A ``RateRange`` with ``rates``, ``losses``, ``smoothed``, ``diverged``, ``suggestion`` and ``plot()``.

    Raises:
        ValueError: Unless 0 < ``low`` < ``high``; if ``steps`` is below 2 or not below 2³¹; for another ``mode``, batches that
            end and cannot start again, and an optimizer with no or several learning rates.

    References:
        Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.

    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> from funcnet.optim.sgd import SGD
    >>> from funcnet.train import train_step
    >>> net, opt, x = Linear(3, 1), SGD(), random.normal(1, (64, 3))
    >>> params = net.init(0)
    >>> batches = [(x[i : i + 16], x[i : i + 16].sum(1, keepdim=True)) for i in range(0, 64, 16)]
    >>> found = lr_range(train_step(net, MSE(), opt), params, opt.init(params), batches, low=1e-4)
    >>> 0.01 < found.suggestion < 1.0
    True
    """
    rate_at = _rate_by_step(low, high, steps, mode)
    _require_share(smoothing, early_stop_threshold)
    rate = _Rate()
    run = _with_rate(step, rate)
    params, state = tree.map(_copy, params), tree.map(_copy, state)
    record = _Record(smoothing, early_stop_threshold)
    with torch.no_grad():
        for i, batch in enumerate(islice(_repeat(batches, steps), steps)):
            rate.tensor.fill_(rate_at(i))
            noise = () if rng is None else (random.fold_in(rng, i),)
            params, state, value = run(params, state, *batch, *noise)
            if not record.add(float(value.mean() if isinstance(value, Tensor) else value)):
                break
    rates = tuple([rate_at(i) for i in range(len(record.losses))])
    return RateRange(rates, tuple(record.losses), tuple(record.smoothed), record.diverged)


class _Record:
    """The losses so far, and their running average."""

    def __init__(self, smoothing: float, threshold: float | None) -> None:
        self.share, self.threshold = smoothing, threshold
        self.average, self.best, self.diverged = 0.0, math.inf, False
        self.losses: list[float] = []
        self.smoothed: list[float] = []

    def add(self, loss: float) -> bool:
        """Add a loss; return whether to continue."""
        self.average = self.share * self.average + (1 - self.share) * loss
        self.losses.append(loss)
        self.smoothed.append(self.average / (1 - self.share ** len(self.losses)))
        self.best = min(self.best, self.smoothed[-1])
        above = self.threshold is not None and self.smoothed[-1] > self.best + (self.threshold - 1) * abs(self.best)
        self.diverged = not math.isfinite(loss) or above
        return not self.diverged


def _rate_by_step(low: Any, high: Any, steps: Any, mode: Any) -> Callable[[int], float]:
    """Return the function from step to rate; a list would take memory for steps that are never run."""
    if not is_number(low) or not is_number(high) or not 0 < low < high:
        raise value_error("lr_range", "low and high must be finite numbers, 0 < low < high", f"low={low!r}, high={high!r}")
    require_whole("lr_range", "steps", 2, steps)
    low, high, last = float(low), float(high), int(steps) - 1  # NumPy numbers would give NumPy numbers
    if mode == "exponential":
        return lambda i: low * (high / low) ** (i / last)
    if mode == "linear":
        return lambda i: low + (high - low) * (i / last)
    raise value_error("lr_range", "mode must be 'exponential' or 'linear'", repr(mode))


def _require_share(smoothing: Any, threshold: Any) -> None:
    if not is_number(smoothing) or not 0 <= smoothing < 1:
        raise value_error("lr_range", "smoothing must be a number of at least 0 and below 1", repr(smoothing))
    if threshold is not None and (not is_number(threshold) or threshold <= 1):
        raise value_error("lr_range", "early_stop_threshold must be a number above 1, or None", repr(threshold))


def _with_rate(step: Any, rate: _Rate) -> Step:
    """Return the step with this rate instead of its optimizer's."""
    inner = step.__wrapped__ if isinstance(step, compiled.Compiled) else step
    if not isinstance(inner, TrainStep):
        if not callable(step):
            raise value_error("lr_range", "step must be a train step, or a function", step)
        return lambda *arguments: step(*arguments, lr=rate.tensor.clone())
    found = [part for part in parts(inner.opt, given=True) if isinstance(part, Optimizer) and hasattr(part, "lr")]
    if len(found) != 1:
        rule = "the optimizer must have one field lr; for several, pass a function that takes lr"
        raise value_error("lr_range", rule, f"{len(found)} in {inner.opt!r}")
    rated: TrainStep = inner.replace(opt=_with_lr(inner.opt, rate))
    return compiled.compile(rated) if isinstance(step, compiled.Compiled) else rated


def _with_lr(value: Any, rate: _Rate) -> Any:
    """Return an optimizer, or a tuple or list with one in it, with another learning rate."""
    if isinstance(value, (tuple, list)):
        return type(value)([_with_lr(one, rate) for one in value])
    if not isinstance(value, Value):
        return value
    if isinstance(value, Optimizer) and hasattr(value, "lr"):
        return value.replace(lr=rate)
    kind: Any = type(value)
    fields = {one.alias: getattr(value, one.name) for one in attrs.fields(kind) if one.init}
    changed = {name: _with_lr(one, rate) for name, one in fields.items() if any(hasattr(part, "lr") for part in parts(one))}
    return value.replace(**changed) if changed else value


def _copy(leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        raise value_error("lr_range", "params and state must be trees of tensors", describe(leaf))
    return leaf.detach().clone()


def _repeat(batches: Any, steps: int) -> Iterator[tuple[Any, ...]]:
    """Yield the batches, and start again when they end."""
    if not isinstance(batches, Iterable) or isinstance(batches, Tensor):
        raise value_error("lr_range", "batches must be a list of pairs (x, target), or an iterable of them", describe(batches))
    count, before = 0, -1
    while count > before:
        before = count
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise value_error("lr_range", "each batch must be a pair (x, target)", describe(batch))
            yield tuple(batch)
            count += 1
    rule = f"batches must have steps={steps} batches, or be a list, over which iteration can start again"
    raise value_error("lr_range", rule, f"{count} batches")
