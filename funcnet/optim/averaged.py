"""Averaged: an optimizer that also keeps an average of the params for evaluation."""

from typing import Any, ClassVar

import torch
from attrs import field

from funcnet import flattening, tree
from funcnet.contract import Grads, Params
from funcnet.errors import add_location, instances
from funcnet.kernels import optim as kernels
from funcnet.kernels.tracing import is_eager
from funcnet.optim.averages import EMA, SWA, Average
from funcnet.optim.base import State
from funcnet.optim.columns import Columns, is_dense, replaced
from funcnet.optim.inner import Inner
from funcnet.optim.wrapping import Numbers, OptimizerWrapper, Rows
from funcnet.value import frozen, parts


@frozen
class Averaged(OptimizerWrapper):
    """Wrap an optimizer to keep an average of the params, updated after each step.

        p ← the step of ``optimizer``
        a ← a + w (p - a)              w the weight of this step in ``average``

    Train with p; evaluate and save a, which ``opt.eval_params(state, params)`` returns. ``fit`` evaluates a. The result is bit
    for bit the same as with ``average`` in a hand-written loop. Every floating leaf is averaged, with or without a gradient:
    running statistics too, and ``refresh_stats`` recomputes them. Counters keep their last value.

    ``MultiSteps(Averaged(opt, EMA()), k)`` averages after each step, ``Averaged(MultiSteps(opt, k), EMA())`` after each gradient.
    In ``SAM``, the average contains the running statistics from before the step, because ``train_step`` updates them afterwards.

    Args:
        optimizer: The optimizer that makes the steps. If it has its own params for evaluation, like ``ScheduleFree``, the average
            of the trained params replaces them.
        average: ``EMA(decay)`` or ``SWA()``; ``EMA(decay, warmup=True)`` forgets the first params sooner.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        bias: Π d of an ``EMA`` with ``debias``.
        count: Number of averaged params of an ``SWA``.
        average: a, in float32 for params in half precision.
        optimizer: The state of the optimizer.

    Raises:
        ValueError: If ``average`` is neither an ``EMA`` nor an ``SWA``; from ``eval_params`` of an ``EMA`` with ``debias``,
            before the first update.

    References:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".

    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = Averaged(SGD(lr=1.0), EMA(0.75)), {"w": torch.zeros(1)}
    >>> params, state = opt.update({"w": -torch.ones(1)}, opt.init(params), params)
    >>> params, opt.eval_params(state, params)
    ({'w': tensor([1.])}, {'w': tensor([0.2500])})
    """

    trees = ("average",)
    follows_params: ClassVar[tuple[str, ...]] = ("average",)
    """The trees in the state with a leaf for each param, with or without a gradient."""

    average: EMA | SWA = field(validator=instances(Average, "an EMA or an SWA"))
    _dtypes: dict[str, torch.dtype] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        OptimizerWrapper.__attrs_post_init__(self)
        object.__setattr__(self, "_dtypes", {name: one.dtype for name, one in self.average.counts().items()})

    @property
    def numbers(self) -> dict[str, torch.dtype]:  # type: ignore[override]  # each average has its own
        return self._dtypes

    def initial(self, name: str, p: torch.Tensor) -> torch.Tensor:
        return self.average.first(p)

    def init(self, params: Params) -> State:
        state: Any = super().init(params)
        return {**state, **self.average.counts()}

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        self._require_state(state)
        column, places, old = self._averages(state, params)
        weight, numbers = self.average.weigh(state)
        try:
            params, inner = self._inner.update(grads, state["optimizer"], params)
        except Exception as error:
            add_location(error, "its inner optimizer")
            raise
        leaves = flattening.flatten_like(state["average"], params)
        new = [leaves[i].to(a.dtype) for i, a in zip(places, old, strict=True)]
        moved = kernels.lerp_each(old, new, weight, old if self.donated else None) if old else ()
        average = flattening.unflatten(state["average"], iter(replaced(column, places, moved)))
        counts = {name: self._number(state[name], one) for name, one in numbers.items()}
        return params, {**counts, "average": average, "optimizer": inner}

    def _averages(self, state: State, params: Params) -> tuple[list[Any], list[int], list[torch.Tensor]]:
        """Return the leaves of the average, the indices of the dense leaves, and these leaves, checked for a step."""
        try:
            ps, column = flattening.flatten_together(params, state["average"])
            places = [i for i, p in enumerate(ps) if is_dense(p)]
            some = [ps[i] for i in places]
            return column, places, self._ready([some, some, [column[i] for i in places]], state["step"])
        except Exception as error:
            steppable = tree.map(lambda p: p if is_dense(p) else None, params)
            raise self._explained(error, steppable, state, params) from None

    def _ready(self, columns: Columns, step: torch.Tensor) -> list[torch.Tensor]:
        """Return the last column, the averages, after checking that the leaves fit, and share no memory if donated."""
        if self.donated and is_eager():
            self._guards.require_apart([columns[0], columns[2]], step)
        elif columns[0] and self._guards.find(columns, step) is None:
            columns = self._guards.check(columns, step, donated=False)[0]
        return [*columns[2]]

    def step(self, numbers: Numbers, columns: Columns, inner: Inner) -> tuple[Numbers, Rows]:
        raise NotImplementedError  # update handles all leaves, with or without a gradient

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the average in the dtypes of ``params``, together with the leaves of ``params`` that are not averaged.

        Args:
            state: The state of the optimizer.
            params: The params in training.
        """
        self._require_state(state)
        rows = zip(*flattening.flatten_together(params, state["average"]), strict=True)
        whole = flattening.unflatten(params, iter([p if a is None else a for p, a in rows]))
        return self.average.params({**{name: state[name] for name in self.numbers}, "average": whole, "dtypes": params})


def followers(opt: Any) -> set[str]:
    """Return the names of the trees in an optimizer's state with a leaf for each param, with or without a gradient."""
    return {name for part in parts(opt, given=True) for name in getattr(part, "follows_params", ())}
