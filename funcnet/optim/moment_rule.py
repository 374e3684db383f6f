"""The driver shared by optimizers and gradient transforms: a count of updates, and moments for each leaf.

A subclass declares the names of its ``moments``, its ``hyperparameters``, and a ``formula`` for one leaf, which reads like the
algorithm in its paper: tensors in, tensors out, nothing written to. The driver provides ``init``, ``update``, ``map_state``,
``rates``, absent gradients, half precision, donation, and errors with paths. ``coefficients`` computes numbers that depend on the
step, like bias corrections, in float64 and once for all leaves.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.errors import value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import is_writable
from funcnet.kernels.freed_memory import retain_freed_memory
from funcnet.kernels.leafwise import each_leaf
from funcnet.kernels.optim_steps import Rows
from funcnet.optim.base import State
from funcnet.optim.columns import CheckedColumns, Columns, GuardCache, is_count, is_dense, is_scalar, replaced
from funcnet.optim.misfits import explained
from funcnet.optim.rates import Rate, Rates, as_floats, as_wide, at, checked, fixed
from funcnet.value import Value, frozen

Numbers = dict[str, Any]
"""Numbers by name: Python numbers in eager mode, 0-d float64 tensors in compiled code and under ``vmap``."""


@frozen
class MomentRule(Value):
    """The common part of ``MomentOptimizer`` and ``MomentTransform``.

    State:
        step: Number of updates made, a 0-d int64 tensor.
        scalars: A 0-d float64 tensor for each name in ``scalars``.
        moments: A tree like params for each name in ``moments``. For params in half precision the moments are float32, and their
            steps are computed in float32 and rounded once.

    Raises:
        ValueError: From ``update`` if the state belongs to another optimizer, or, with the path, if trees or tensors do not fit
            each other.
    """

    rates_below: ClassVar[Sequence[float]] = ()
    """Exclusive upper bounds of the rates; by default any finite, non-negative number is a rate."""

    # Values that would otherwise be looked up at every step.
    _writes: bool = field(init=False, eq=False)
    _names: tuple[str, ...] = field(init=False, eq=False)
    _length: int = field(init=False, eq=False)
    _numbers: tuple[str, ...] = field(init=False, eq=False)
    _fixed: Rates | None = field(init=False, eq=False)
    _guards: GuardCache = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_writes", getattr(self, "donated", False))
        object.__setattr__(self, "_names", self.moments)
        object.__setattr__(self, "_numbers", tuple(self.scalars))
        object.__setattr__(self, "_length", 1 + len(self._numbers) + len(self._names))
        object.__setattr__(self, "_fixed", as_floats(self.constant_rates()))
        object.__setattr__(self, "_guards", GuardCache())

    @property
    @abstractmethod
    def moments(self) -> tuple[str, ...]:
        """The names of the moments."""

    @property
    def scalars(self) -> dict[str, float]:
        """The names of further numbers in the state, and their initial values."""
        return {}

    @property
    def hyperparameters(self) -> dict[str, Rate]:
        """The rates by name: numbers, schedules or 0-d tensors."""
        return {}

    def rates_at(self, step: Tensor) -> Rates:
        """Return the rates for the next update after ``step`` updates, in the order of ``hyperparameters``.

        Args:
            step: The number of updates made, a 0-d tensor.
        """
        return at(step, *self.hyperparameters.values())

    def constant_rates(self) -> Rates | None:
        """Return the rates if they are the same at every step, which saves looking them up; else ``None``."""
        return fixed(*self.hyperparameters.values())

    def initial(self, name: str, p: Tensor) -> Tensor:
        """Return the initial value of a moment: zeros, in float32 for half precision.

        Args:
            name: The name of the moment.
            p: The parameter.
        """
        shape = self.moment_shape(name, p.shape)
        if shape == p.shape:
            return torch.zeros_like(p, dtype=kernels.wide(p.dtype))
        return p.new_zeros(shape, dtype=kernels.wide(p.dtype))

    def moment_shape(self, name: str, shape: torch.Size) -> Sequence[int]:
        """Return the shape of a moment, by default the shape of the parameter.

        Args:
            name: The name of the moment.
            shape: The shape of the parameter.
        """
        return shape

    def coefficients(self, t: Any, rates: Numbers, scalars: Numbers, columns: Columns) -> tuple[Numbers, Numbers]:
        """Return the keyword arguments of ``formula``, by default the rates, and the new scalars of the state.

        Args:
            t: The number of this update: 1, 2, ...
            rates: The rates at this step by name.
            scalars: The scalars in the state by name.
            columns: The lists of params, gradients and moments, for numbers that depend on all of them.
        """
        return rates, scalars

    def formula(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return ``(p, *moments)``: the new param of one leaf and its new moments.

        A transform returns the new gradient in place of the param. The results can be arguments, but not views of them.

        Args:
            args: ``p, g, *moments`` of one leaf.
            kwargs: The numbers from ``coefficients``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define formula, or step")

    def step(self, columns: Columns, step: Tensor, rates: Rates) -> Columns:
        """Return the new lists of params (for a transform: of gradients) and moments. By default ``formula`` runs for each leaf.

        Args:
            columns: The lists of params, gradients and moments, whose shapes and dtypes agree.
            step: The number of updates, including this one.
            rates: The rates at this step.
        """
        return self._leaf_by_leaf(columns, step, rates, [])[0]

    def _leaf_by_leaf(self, columns: Columns, step: Tensor, rates: Rates, scalars: Sequence[Tensor]) -> tuple[Columns, list[Any]]:
        t, names = as_wide(kernels.read(step)), self._numbers if scalars else ()
        held = dict(zip(names, map(kernels.read, scalars), strict=True))
        numbers, after = self.coefficients(t, dict(zip(self.hyperparameters, rates, strict=True)), held, columns)
        given = {name: kernels.materialize_scalar(one) for name, one in numbers.items()}
        new = each_leaf(self.formula, columns, given, self._writes)
        return new, [after[name] for name in names]

    def init(self, params: Params) -> State:
        retain_freed_memory()  # every training loop calls init
        state: dict[str, Any] = {"step": torch.zeros((), dtype=torch.int64)}
        state |= {name: torch.tensor(one, dtype=torch.float64) for name, one in self.scalars.items()}
        for name in self.moments:
            state[name] = tree.map(lambda p, name=name: self.initial(name, p.detach()) if is_dense(p) else None, params)
        return state

    def rates(self, state: State) -> dict[str, Any]:
        if not isinstance(state, dict) or "step" not in state:
            raise self._explained(LookupError(), {}, state, {})
        if not is_count(state["step"]):
            raise value_error(self, "state must have a 0-d int64 tensor as step", state["step"])
        return dict(zip(self.hyperparameters, self._rates(state["step"]), strict=True))

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Map over the moments. The counts are copied if the optimizer is donated, since it writes to them.

        Args:
            f: A function of a tree like params, and of one tree for each of ``others``.
            state: The state.
            others: Further states of this optimizer.
        """
        if not isinstance(state, dict) or {*state} != {"step", *self._numbers, *self._names}:
            raise self._explained(LookupError(), {}, state, {})
        rows = {name: [one[name] for one in (state, *others)] for name in self._names}
        counts = {name: state[name].clone() if self._writes else state[name] for name in ("step", *self._numbers)}
        return {**counts, **{name: f(*row) for name, row in rows.items()}}

    def _update(self, carrier: Tree, grads: Tree, state: State, params: Tree) -> tuple[Columns, Columns, Any, dict[str, Any]]:
        """Return the columns, the new columns, a function that builds a tree from a column, and the new counts."""
        try:
            if len(state) != self._length:
                raise LookupError
            columns, write = self._guards.flatten((carrier, grads, *[state[name] for name in self._names]))
            if not self._numbers:
                step, new = self._new(columns, state["step"], ())
                return columns, new, write, {"step": step}
            scalars = [state[name] for name in self._numbers]
            step, new = self._new(columns, state["step"], scalars)
            return columns, new, write, {"step": step, **dict(zip(self._numbers, scalars, strict=True))}
        except Exception as error:
            raise self._explained(error, grads, state, params) from None

    def _new(self, columns: Columns, step: Tensor, scalars: Sequence[Tensor]) -> tuple[Tensor, Columns]:
        """Return the next step and the new columns of params and moments; rows without a gradient do not change.

        The new values of ``scalars`` are written into that list.
        """
        if not columns[1] or _ABSENT in map(type, columns[1]):
            return self._new_in_part(columns, step, scalars)
        known = self._guards.find(columns, step)
        if known is None or (self._writes and not known.is_apart(columns)):
            columns, known = self._guards.check(columns, step, self._writes, self._shapes)
        if scalars and not all(map(is_scalar, scalars)):
            raise LookupError
        rates = self._fixed or self._rates(step)
        step = self._next(step, known)
        if not known.half and not scalars:
            return step, self.step(Rows(columns) if known.in_rows else columns, step, rates)
        if not known.half:
            return step, self._with_scalars(columns, step, rates, scalars)
        return step, kernels.step_in_single(lambda wide: self._with_scalars(wide, step, rates, scalars), columns, self._writes)

    def _with_scalars(self, columns: Columns, step: Tensor, rates: Rates, scalars: Any) -> Columns:
        if not scalars:
            return self.step(columns, step, rates)
        new, after = self._leaf_by_leaf(columns, step, rates, scalars)
        scalars[:] = map(self._kept, scalars, after)
        return new

    def _count(self, step: Tensor, scalars: Sequence[Tensor]) -> Tensor:
        """Return the next step if no leaf has a gradient; the scalars are updated too."""
        if not (is_count(step) and all(map(is_scalar, scalars))) or (self._writes and not is_writable(step)):
            raise LookupError
        rates = self._rates(step)
        step = self._next(step)
        if scalars:
            self._with_scalars([[] for _ in range(2 + len(self._names))], step, rates, scalars)
        return step

    def _rates(self, step: Tensor) -> Rates:
        return self._fixed or checked(self, self.rates_at(step), step, self.rates_below)

    def _kept(self, old: Tensor, new: Any) -> Tensor:
        """Return a scalar as a tensor; with ``donated``, in the memory of the old tensor."""
        made = kernels.beside(torch.as_tensor(new, dtype=torch.float64), old)
        return old.copy_(made) if self._writes else made

    def _shapes(self, column: int, shape: torch.Size) -> Sequence[int]:
        return self.moment_shape(self._names[column], shape)

    def _next(self, step: Tensor, known: CheckedColumns | None = None) -> Tensor:
        """Return the next count, after all checks: an update that raises leaves a donated state unchanged."""
        one = 1 if known is None or known.guard is None else ONE  # in eager mode a Python number takes 0.4 µs longer
        return step.add_(one) if self._writes else step + one

    def _new_in_part(self, columns: Columns, step: Tensor, scalars: Sequence[Tensor]) -> tuple[Tensor, Columns]:
        places = [i for i, g in enumerate(columns[1]) if g is not None]
        old = [columns[0], *columns[2:]]
        if not places:
            return self._count(step, scalars), old
        some = [[column[i] for i in places] for column in columns]
        step, parts = self._new(some, step, scalars)
        new = zip(old, [some[0], *some[2:]], parts, strict=True)
        return step, [column if part is given else replaced(column, places, part) for column, given, part in new]

    def _explained(self, error: Exception, grads: Tree, state: State, params: Params) -> Exception:
        """Return an error for the first misfit in the state, the trees, or their leaves; else ``error`` itself."""
        names = ("step", *self.scalars, *self.moments)
        if not isinstance(state, dict) or {*state} != {*names}:
            return value_error(self, f"state must be a dict of {', '.join(names)}, as init returns it", state)
        for name in self.scalars:
            if not is_scalar(state[name]):
                return value_error(self, f"state must have a 0-d float64 tensor as {name}", state[name])
        others = {name: one for name, one in state.items() if name not in self.scalars}
        return explained(self, error, params, {"grads": grads, **others}, self._writes, like=self.initial)


_ABSENT = type(None)
ONE = torch.ones((), dtype=torch.int64)
