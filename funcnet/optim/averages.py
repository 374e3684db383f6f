"""Averages of params over a training run, which often generalize better than the last params: EMA and SWA.

    average = EMA(0.999)
    state = average.init(params)
    ...
    params, opt_state, value = step(params, opt_state, x, target)
    state = average.update(state, params)                          after each step
    ...
    net.inference()(average.params(state), x)                      the averaged params

``Averaged(opt, EMA(0.999))`` does this inside an optimizer, whose ``eval_params(state, params)`` returns the averaged params;
``fit`` then validates them.

Floating leaves of at least 16 bits are averaged. Half precision is averaged in float32, and ``params`` rounds the result. Other
leaves, like counters, keep their last value. Running statistics are averaged too; ``refresh_stats`` recomputes them for the
averaged params.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Params
from funcnet.errors import add_location, describe, flag, value_error, whole
from funcnet.kernels import optim as kernels
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import State
from funcnet.optim.columns import is_count, is_dense
from funcnet.optim.formulas import smaller
from funcnet.optim.rates import Rate, as_wide, at, checked, rate_field
from funcnet.value import Value, frozen


class Average(Value, ABC):
    """The base of averages: a frozen value with ``init``, ``update`` and ``params``.

    a ← a + w (p - a)        w from ``weigh``
    """

    __slots__ = ()

    @abstractmethod
    def counts(self) -> dict[str, Tensor]:
        """Return the numbers in the state before the first update."""

    @abstractmethod
    def weigh(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        """Return the weight w of the next params, and the new numbers in the state.

        Args:
            state: The state of the average.
        """

    def first(self, p: Tensor) -> Tensor:
        """Return the average before the first update.

        Args:
            p: A leaf of params.
        """
        return p.detach().to(kernels.wide(p.dtype), copy=True)

    def init(self, params: Params) -> State:
        """Return the state before the first update. It shares no memory with ``params``, which can be donated.

        Args:
            params: The initial params.
        """
        _require_tensors(self, params)
        average = tree.map(lambda p: self.first(p) if is_dense(p) else p.clone(), params)
        return {**self.counts(), "average": average, "dtypes": tree.map(_dtype_of, params)}

    def update(self, state: State, params: Params) -> State:
        """Return the state with ``params`` added to the average.

        Args:
            state: The state of the average.
            params: The params after a step.
        """
        columns = self._columns(state, params)
        weight, counts = self.weigh(state)
        places = [i for i, p in enumerate(columns[1]) if is_dense(p)]
        old, new = [[column[i] for i in places] for column in columns]
        new = [p.detach().to(a.dtype) for a, p in zip(old, new, strict=True)]
        moved = iter(kernels.lerp_each(old, new, weight) if old else ())
        average = [next(moved) if is_dense(p) else None if p is None else p.clone() for p in columns[1]]
        return {**counts, "average": flattening.unflatten(state["average"], iter(average)), "dtypes": state["dtypes"]}

    def params(self, state: State) -> Params:
        """Return the averaged params, in the dtypes of params.

        Args:
            state: The state of the average.
        """
        self._require_state(state)
        rows = [*zip(*self._together("params: average against dtypes", state["average"], state["dtypes"]), strict=True)]
        for a, kind in rows:
            if not (a is kind is None or (isinstance(a, Tensor) and isinstance(kind, Tensor))):
                rule = "state must have a tensor in dtypes for each tensor in average"
                raise value_error(self, rule, f"{describe(a)} and {describe(kind)}")
        made: Params = flattening.unflatten(state["average"], iter([None if a is None else a.to(kind.dtype) for a, kind in rows]))
        return made

    def _together(self, which: str, one: Any, other: Any) -> list[list[Any]]:
        """Return the leaves of two trees side by side; an error says which trees disagree."""
        try:
            return flattening.flatten_together(one, other)
        except ValueError as misfit:
            add_location(misfit, f"{self!r}, {which}")
            raise

    def _columns(self, state: State, params: Params) -> list[list[Any]]:
        self._require_state(state)
        columns = self._together("update: state against params", state["average"], params)
        for i, (a, p) in enumerate(zip(*columns, strict=True)):
            if not _fits(a, p):
                path = [*tree.names(params)][i - sum(one is None for one in columns[1][:i])] if p is not None else f"leaf {i}"
                raise value_error(self, f"params at {path!r} must match the state, {describe(a)}", describe(p))
        return columns

    def _require_state(self, state: State) -> None:
        names = {*self.counts(), "average", "dtypes"}
        if not isinstance(state, dict) or state.keys() != names or not is_count(state["step"]):
            raise value_error(self, f"state must be a dict of {', '.join(sorted(names))}, as init returns it", state)


def _dtype_of(p: Tensor) -> Tensor:
    """Return an empty tensor in the dtype of a leaf, for ``params`` to round to."""
    return torch.empty((0,), dtype=p.dtype, device=p.device)


def _require_tensors(average: Value, params: Params) -> None:
    """Raise for leaves that are not tensors, with their path."""
    for path, p in tree.names(params).items():
        if not isinstance(p, Tensor):
            raise value_error(average, f"params must have a tensor at {path!r}", describe(p))


def _fits(a: Any, p: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(p, Tensor):
        return a is p is None
    return a.shape == p.shape and a.dtype is kernels.wide(p.dtype) and a.device == p.device


def _count() -> Tensor:
    return torch.zeros((), dtype=torch.int64)


@frozen
class EMA(Average):
    """Exponential moving average of params: ``torch.optim.swa_utils.get_ema_avg_fn``, ``optax.ema``.

        a ← d a + (1 - d) p            a starts at the params of ``init``, with debias at 0
        params = a                     with debias: a / (1 - Π d)

    Args:
        decay: d, the decay rate per update: a number, a schedule of the number of updates made, or a 0-d tensor. 0.999 averages
            over about 1000 steps.
        debias: Whether to ignore the params of ``init``; ``params`` then needs an update first.
        warmup: Whether to limit d to (1 + t) / (10 + t) after t updates, which forgets the first params sooner.

    State:
        step: Number of updates made.
        bias: Π d, a 0-d float64 tensor, with ``debias``.
        average: a, in float32 for params in half precision.
        dtypes: Empty tensors in the dtypes of params.

    Raises:
        ValueError: If ``decay`` is outside 0 ≤ d < 1; from ``update`` and ``params`` if the state belongs to another average or
            does not fit the params, with the path; from ``params`` with ``debias`` before the first update.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; for ``debias`` Kingma & Ba 2015, section
        3.

    >>> average = EMA(0.75)
    >>> state = average.init({"w": torch.zeros(1)})
    >>> average.params(average.update(state, {"w": torch.ones(1)}))
    {'w': tensor([0.2500])}
    """

    decay: Rate = rate_field(0.999, below=1.0)
    debias: bool = field(default=False, validator=flag)
    warmup: bool = field(default=False, validator=flag)

    def counts(self) -> dict[str, Tensor]:
        return {"step": _count(), **({"bias": torch.ones((), dtype=torch.float64)} if self.debias else {})}

    def first(self, p: Tensor) -> Tensor:
        return torch.zeros_like(p, dtype=kernels.wide(p.dtype)) if self.debias else super().first(p)

    def weigh(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        (decay,) = checked(self, at(state["step"], self.decay), state["step"], (1.0,))
        if self.warmup:
            t = as_wide(kernels.read(state["step"]))
            decay = smaller((1 + t) / (10 + t), decay)
        bias = {"bias": state["bias"] * decay} if self.debias else {}
        return 1 - decay, {"step": state["step"] + 1, **bias}

    def params(self, state: State) -> Params:
        found = super().params(state)
        if not self.debias:
            return found
        if is_eager() and not state["step"].is_meta and not state["step"]:
            raise value_error(self, "with debias, update must be called before params", "a state without updates")
        share = 1 - state["bias"]
        rows = zip(*flattening.flatten_together(found, state["average"]), strict=True)
        made: Params = flattening.unflatten(found, iter([_over(p, a, share) for p, a in rows]))
        return made


def _over(p: Any, a: Any, share: Tensor) -> Any:
    """Return a / share in the dtype of p for an averaged leaf, p for another leaf."""
    return (a / kernels.narrowed(share, a)).to(p.dtype) if is_dense(a) else p


@frozen
class SWA(Average):
    """Average of params with equal weights: ``torch.optim.swa_utils.AveragedModel``; with ``start=0`` Polyak averaging.

        a ← a + (p - a) / (n + 1)      n ← n + 1      at update ``start`` and every ``every`` updates after it, counted from 0

    Before ``start``, the average is the last params. Use SWA with a constant or cyclic learning rate, and average at the end of
    each cycle.

    Args:
        start: The first update whose params are averaged.
        every: The number of updates from one averaged update to the next.

    State:
        step: Number of updates made.
        count: n, the number of averaged params.
        average: a, in float32 for params in half precision.
        dtypes: Empty tensors in the dtypes of params.

    Raises:
        ValueError: If ``start`` is below 0 or ``every`` below 1; from ``update`` and ``params`` if the state belongs to another
            average or does not fit the params, with the path.

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov & Wilson 2018, "Averaging weights leads to wider optima and better generalization".

    >>> average = SWA()
    >>> state = average.init({"w": torch.zeros(1)})
    >>> for p in (1.0, 2.0, 6.0):
    ...     state = average.update(state, {"w": torch.full((1,), p)})
    >>> average.params(state)
    {'w': tensor([3.])}
    """

    start: int = field(default=0, validator=whole(0))
    every: int = field(default=1, validator=whole(1))

    def counts(self) -> dict[str, Tensor]:
        return {"step": _count(), "count": _count()}

    def weigh(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        step, count = state["step"], state["count"]
        is_averaged = (step >= self.start) & ((step - self.start) % self.every == 0)
        weight = torch.where(count == 0, 1.0, is_averaged.to(torch.float64) / (count + 1))
        return kernels.read(weight), {"step": step + 1, "count": count + is_averaged.to(torch.int64)}
