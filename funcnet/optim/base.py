"""The contract of optimizers and of gradient transforms, and the driver that the optimizers share.

    init(params) -> state                              complete before the first step
    update(grads, state, params) -> (params, state)    an optimizer: one step
    update(grads, state, params) -> (grads, state)     a gradient transform, which stands before an optimizer in a chain

1.  Pure. The same arguments give the same bits, and no argument is written to, unless it was given up by ``donate``.
2.  State is a tree of tensors whose structure, shapes and dtypes no update changes. So it is saved, compared and compiled
    like params, and a run that goes on from a saved state is the run that was never interrupted, bit for bit.
3.  A leaf whose gradient is ``None`` stays as it is, and so does all that state holds for it. For a leaf of params that is not
    floating, such as a counter, state holds ``None``. The step counts updates, not the gradients of a leaf: where its first one
    comes at update 6, it is corrected for as at step 6, and not as at step 1, which torch.optim counts for each leaf.
4.  Shapes, dtypes, devices and structure of params are kept.
5.  A rate is a number or a schedule: a function of the number of updates made before, so 0 at the first. In eager mode it is
    called with an int, in compiled code and under ``vmap`` with a 0-d tensor.
6.  No graph: in eager mode what ``update`` returns requires no gradient, whatever comes in, as if it had been detached. To
    differentiate through a step, use the transforms of ``torch.func``.
7.  Refused before written: an update that raises an error for what it got has written to nothing, donated or not.
8.  All of it works under ``torch.compile(fullgraph=True)``, ``torch.func.vmap`` and on the meta device.
9.  ``acts_on`` says what the step of a number depends on: ``"elements"``, on its own gradient and moments only; ``"leaves"``, on
    the leaf that it is in; ``"tree"``, the default, on all leaves, as with a norm of all gradients. Unless it is ``"tree"``, an
    update of a part of params, with the part of the state that ``map_state`` takes, is that part of the whole update.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from operator import is_
from typing import Any, ClassVar, Self

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Params
from funcnet.errors import Validator, describe, flag, is_number, number, value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import is_writable
from funcnet.kernels.optim_steps import Rows
from funcnet.kernels.tracing import is_eager
from funcnet.optim.columns import Agreed, Columns, GuardCache, is_count, is_dense, moment_like
from funcnet.optim.misfits import explained
from funcnet.value import Value, frozen

State = Any
"""A tree of tensors."""

Rate = float | Callable[[Any], Any]
"""A number, or a schedule: a function of the step, an int or a 0-d tensor."""


class GradientTransform(Value, ABC):
    """A frozen value with ``init`` and ``update``, that makes other gradients of gradients; subclass it with ``@frozen``."""

    __slots__ = ()

    @property
    def acts_on(self) -> str:
        """What the new gradient of a number depends on: ``"elements"``, ``"leaves"``, or the whole ``"tree"``."""
        return "tree"

    def init(self, params: Params) -> State:
        """Make the state before the first step; ``{}`` for a transform without any."""
        return {}

    @abstractmethod
    def update(self, grads: Tree, state: State, params: Params) -> tuple[Tree, State]:
        """Return the gradients for the next in the chain, and the state."""

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` of each tree in it that is like params; see ``Optimizer.map_state``."""
        return _mapped(self, f, state, *others)


class Optimizer(Value, ABC):
    """A frozen value with ``init`` and ``update``, that makes one step; subclass it with ``@frozen``."""

    __slots__ = ()

    @property
    def acts_on(self) -> str:
        """What the step of a number depends on: ``"elements"``, ``"leaves"``, or the whole ``"tree"``."""
        return "tree"

    @abstractmethod
    def init(self, params: Params) -> State:
        """Make the state before the first step."""

    @abstractmethod
    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        """Return the params and the state after a step."""

    def donate(self) -> "Optimizer":
        """Return the optimizer that may write to the ``params`` and ``state`` it gets; itself where it has no such form."""
        return self

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` applied to each tree in it that is like params, and the rest unchanged.

        It takes the state of one layer out of the state of a net: ``opt.map_state(lambda moments: moments[0], state)``. With more
        states, ``f`` gets the tree of each. By default a state is a dict: its tensors are counts, its other entries are trees
        like params.
        """
        return _mapped(self, f, state, *others)

    def require_fit(self, state: State, params: Params) -> None:
        """Raise what ``update`` would raise for this state and these params, before a donated one writes to any part of them."""


def _mapped(who: Any, f: Callable[..., Tree], state: State, *others: State) -> State:
    if not isinstance(state, dict):
        rule = "map_state must be defined for a state that is no dict of counts and of trees like params"
        raise value_error(who, rule, describe(state))
    rows = {name: [one, *[other[name] for other in others]] for name, one in state.items()}
    return {name: row[0] if isinstance(row[0], Tensor) else f(*row) for name, row in rows.items()}


def rate(at_least: float = 0.0) -> Validator:
    """Make a validator for a number with a lower bound that float32 can hold, or a schedule."""
    judge, fits = number(at_least), number(at_most=kernels.MOST)

    def validate(value: Any, attribute: Any, got: Any) -> None:
        if not callable(got):
            judge(value, attribute, got)
            fits(value, attribute, got)

    return validate


def fixed(*rates: Rate) -> Sequence[Any] | None:
    """Return rates that are all numbers; ``None`` where one is a schedule."""
    return None if any(callable(one) for one in rates) else rates


def at(step: Tensor, *rates: Rate) -> Sequence[Any]:
    """Return each rate's value at a step: a number, or a 0-d tensor from a schedule in compiled code."""
    now = kernels.read(step)
    return [kernels.materialize_scalar(_read(one(now))) if callable(one) else one for one in rates]


def _read(rate: Any) -> Any:
    """Return a 0-d tensor at hand as a number, so that both give the same bits; anything else as it is."""
    return kernels.read(rate.detach()) if isinstance(rate, Tensor) and rate.dim() == 0 and is_eager() else rate


def _as_floats(rates: Sequence[Any] | None) -> Sequence[Any] | None:
    """Return numbers as floats: kernels take no others of numpy, and no large int."""
    return None if rates is None else tuple([float(one) if is_number(one) else one for one in rates])


def is_rate(value: Any, below: float = inf) -> bool:
    """Tell whether a value is a number of at least 0 that float32 can hold, below a bound."""
    return is_number(value) and 0 <= value < below and value <= kernels.MOST


def _is_scalar(rate: Tensor, step: Tensor) -> bool:
    """Tell whether a tensor can be a rate: real, 0-d, and not without memory where the step has some."""
    return rate.dim() == 0 and not rate.is_complex() and rate.is_meta <= step.is_meta


@frozen
class MomentOptimizer(Optimizer):
    """An optimizer that counts its steps and holds, for each leaf, some moments of the leaf's shape.

    State    ``step``, a 0-d int64 tensor, and a tree like params for each of ``moments``, zeros at first, in float32 for params
             in half precision, whose steps are computed in float32 too and rounded once.
    Raises   ``ValueError`` for a state of another optimizer, and, with the path, for trees and tensors that do not fit.
    """

    rates_below: ClassVar[Sequence[float]] = ()
    """What each of the rates at a step must be below; by default any finite number of at least 0 is a rate."""

    donated: bool = field(default=False, kw_only=True, validator=flag)
    # What every step would ask for again.
    _names: tuple[str, ...] = field(init=False, eq=False)
    _fixed: Sequence[Any] | None = field(init=False, eq=False)
    _guards: GuardCache = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_names", self.moments)
        object.__setattr__(self, "_fixed", _as_floats(self.constant_rates()))
        object.__setattr__(self, "_guards", GuardCache())

    @property
    @abstractmethod
    def moments(self) -> tuple[str, ...]:
        """The names of the moments."""

    @abstractmethod
    def rates_at(self, step: Tensor) -> Sequence[Any]:
        """Return the rates for the update that follows ``step`` others."""

    @abstractmethod
    def constant_rates(self) -> Sequence[Any] | None:
        """Return the rates where they are the same at every step, so that no step asks for them; else ``None``."""

    @abstractmethod
    def step(self, columns: Columns, step: Tensor, rates: Sequence[Any]) -> Columns:
        """Return new lists of params and moments from lists of params, gradients and moments.

        Their shapes and dtypes agree; ``step`` counts this update too.
        """

    def donate(self) -> Self:
        return self.replace(donated=True)

    def init(self, params: Params) -> State:
        zeros = lambda leaf: moment_like(leaf) if is_dense(leaf) else None
        return {"step": torch.zeros((), dtype=torch.int64), **{name: tree.map(zeros, params) for name in self.moments}}

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Map over the moments. A donated optimizer writes to its count, and gets a separate one for each part."""
        if not isinstance(state, dict) or len(state) != 1 + len(self._names):
            raise self._explained(LookupError(), {}, state, {})
        rows = {name: [one[name] for one in (state, *others)] for name in self._names}
        step = state["step"].clone() if self.donated else state["step"]
        return {"step": step, **{name: f(*row) for name, row in rows.items()}}

    def require_fit(self, state: State, params: Params) -> None:
        if not self.donated or not is_eager():
            return
        try:
            columns = flattening.flatten_together(params, *[state[name] for name in self._names])
            self._guards.require_apart(columns, state["step"])
        except Exception as error:
            steppable = tree.map(lambda p: p if is_dense(p) else None, params)
            raise self._explained(error, steppable, state, params) from None

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        names = self._names
        try:
            if len(state) != 1 + len(names):
                raise LookupError
            columns, write = self._guards.flatten((params, grads, *[state[name] for name in names]))
            step, new = self._new(columns, state["step"])
        except Exception as error:
            raise self._explained(error, grads, state, params) from None
        if self.donated and all(map(is_, new, (columns[0], *columns[2:]))):
            return params, {**state, "step": step}
        params, *moments = [write(column) for column in new]
        return params, {"step": step, **dict(zip(names, moments, strict=True))}

    def _new(self, columns: Columns, step: Tensor) -> tuple[Tensor, Columns]:
        """Return the next step and the new columns of params and moments; the rows without a gradient stay."""
        if not columns[1] or _ABSENT in map(type, columns[1]):
            return self._new_in_part(columns, step)
        known = self._guards.find(columns, step)
        if known is None or (self.donated and not known.is_apart(columns)):
            columns, known = self._guards.judge(columns, step, self.donated)
        rates = self._fixed or self._checked(self.rates_at(step), step)
        step = self._next(step, known)
        if known.half:
            return step, kernels.step_in_single(lambda wide: self.step(wide, step, rates), columns, self.donated)
        return step, self.step(Rows(columns) if known.in_rows else columns, step, rates)

    def _checked(self, rates: Sequence[Any], step: Tensor) -> Sequence[Any]:
        """Return the rates of schedules, which must be numbers, before anything is written."""
        rates = _as_floats([*map(_read, rates)]) or ()
        for one, below in zip(rates, self.rates_below or [inf] * len(rates), strict=True):
            if not (_is_scalar(one, step) if isinstance(one, Tensor) else is_rate(one, below)):
                limits = "of at least 0" + f" and below {below}" * (below < inf)
                raise value_error(self, f"a schedule must return a finite number {limits}, or a 0-d tensor", describe(one))
        return rates

    def _next(self, step: Tensor, known: Agreed | None = None) -> Tensor:
        """Count: only once all fits, so that what was given up is as it was where it does not."""
        one = 1 if known is None or known.guard is None else _ONE  # in eager mode a number takes 0.4 µs more
        return step.add_(one) if self.donated else step + one

    def _new_in_part(self, columns: Columns, step: Tensor) -> tuple[Tensor, Columns]:
        places = [i for i, g in enumerate(columns[1]) if g is not None]
        old = [columns[0], *columns[2:]]
        if not places and is_count(step) and (not self.donated or is_writable(step)):
            return self._next(step), old
        if not places:
            raise LookupError
        some = [[column[i] for i in places] for column in columns]
        step, parts = self._new(some, step)
        new = zip(old, [some[0], *some[2:]], parts, strict=True)
        return step, [column if part is given else _replaced(column, places, part) for column, given, part in new]

    def _explained(self, error: Exception, grads: Tree, state: State, params: Params) -> Exception:
        """Turn an error into ours: the state first, then the trees, then their leaves; else as it was."""
        names = ("step", *self.moments)
        if not isinstance(state, dict) or {*state} != {*names}:
            return value_error(self, f"state must be a dict of {', '.join(names)}, as init makes it", state)
        return explained(self, error, params, {"grads": grads, **state}, self.donated)


_ABSENT = type(None)
_ONE = torch.ones((), dtype=torch.int64)


def _replaced(column: Sequence[Tensor], places: list[int], new: Sequence[Tensor]) -> list[Tensor]:
    column = list(column)
    for i, x in zip(places, new, strict=True):
        column[i] = x
    return column
