"""The bases of optimizers and gradient transforms that count their updates and keep moments for each leaf."""

from operator import is_
from typing import Any, ClassVar, Self

from attrs import field

from funcnet import flattening, tree
from funcnet.contract import Grads, Params
from funcnet.errors import flag
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.optim_rows import RowsStep
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import GradientTransform, Optimizer, State
from funcnet.optim.columns import Columns, Write, is_count, is_dense, is_scalar
from funcnet.optim.moment_rule import ONE, MomentRule
from funcnet.optim.plans import Plan, PlanCache
from funcnet.value import frozen


@frozen
class MomentOptimizer(MomentRule, Optimizer):
    """The base of optimizers that count their steps and keep moments for each leaf.

        (p, *moments) ← formula(p, g, *moments, **numbers)

    A subclass defines ``moments``, ``hyperparameters`` and ``formula``, and if needed ``coefficients``, ``scalars``, ``initial``
    and ``moment_shape``. The base class adds ``init``, ``update``, schedules, absent gradients, half precision, donation, and
    errors with paths.

    Args:
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made, a 0-d int64 tensor.
        scalars: A 0-d float64 tensor for each name in ``scalars``.
        moments: A tree like params for each name in ``moments``, in float32 for params in half precision.

    Raises:
        ValueError: From ``update`` if the state belongs to another optimizer, or, with the path, if trees or tensors do not fit
            each other.

    >>> import torch
    >>> from funcnet.optim.rates import Rate, rate_field
    >>> @frozen
    ... class HeavyBall(MomentOptimizer):
    ...     lr: Rate = rate_field(0.1)
    ...     moments = ("velocity",)
    ...
    ...     @property
    ...     def hyperparameters(self):
    ...         return {"lr": self.lr}
    ...
    ...     def formula(self, p, g, velocity, *, lr):
    ...         velocity = 0.9 * velocity + g
    ...         return p - lr * velocity, velocity
    >>> opt, params = HeavyBall(), {"w": torch.ones(2)}
    >>> opt.update(params, opt.init(params), params)[0]
    {'w': tensor([0.9000, 0.9000])}
    """

    donated: bool = field(default=False, kw_only=True, validator=flag)
    _plans: PlanCache = field(init=False, eq=False, factory=PlanCache)

    def donate(self) -> Self:
        return self.replace(donated=True)

    def require_fit(self, state: State, params: Params) -> None:
        if not self.donated or not is_eager():
            return
        try:
            columns, _ = self._guards.flatten((params, *[state[name] for name in self._names]))
            self._guards.require_apart(columns, state["step"], self._shapes)
            if not is_count(state["step"]) or not all([is_scalar(state[name]) for name in self._numbers]):  # noqa: C419
                raise LookupError
        except Exception as error:
            steppable = tree.map(lambda p: p if is_dense(p) else None, params)
            raise self._explained(error, steppable, state, params) from None

    def rows_step(self, columns: Columns) -> RowsStep | None:
        """Return a function for the whole step of contiguous columns in main memory; ``None`` by default.

        It equals ``step`` bit for bit. Optimizers with constant rates can override it to skip the overhead of ``step``.

        Args:
            columns: An example of the columns that it will be called with.
        """
        return None

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Params, State]:
        found = self._plans.find(grads, state, params)
        if found is not None:
            return self._by_plan(*found, grads, state, params)
        columns, new, write, counts = self._update(params, grads, state, params)
        self._learn(columns, write, grads, state, params)
        if self._writes and all(map(is_, new, (columns[0], *columns[2:]))):
            return params, {**state, **counts}
        params, *moments = [write(column) for column in new]
        return params, {**counts, **dict(zip(self._names, moments, strict=True))}

    def _by_plan(self, plan: Plan, found: Any, grads: Tree, state: Any, params: Params) -> tuple[Params, State]:
        columns, others, step = found
        try:
            rates = self._fixed or self._rates(step)
            step = step.add_(ONE) if self._writes else step + ONE
            if plan.run is not None:
                new = plan.run(columns, step)
            elif plan.half:
                new = kernels.step_in_single(lambda wide: self.step(wide, step, rates), columns, self._writes)
            else:
                new = self.step(columns, step, rates)
        except Exception as error:
            raise self._explained(error, grads, state, params) from None
        if self._writes and all(map(is_, new, (columns[0], *columns[2:]))):
            return params, {**state, "step": step}
        return plan.write(new, others, step)

    def _learn(self, columns: Columns, write: Write, grads: Tree, state: State, params: Params) -> None:
        """Make a plan for updates like this one, which passed all checks."""
        if self._numbers or not is_eager():
            return
        absent = [g is None for g in columns[1]]
        stepped = [[x for x, one in zip(column, absent, strict=True) if not one] for column in columns]
        known = self._guards.find(stepped, state["step"]) if stepped[0] else None
        if known is not None and self._plans.wants(known) and self._plans.find(grads, state, params) is None:
            self._plans.learn(write(columns[0]), absent, self._names, known, self._writes, self.rows_step(stepped))


@frozen
class MomentTransform(MomentRule, GradientTransform):
    """The base of gradient transforms that count their steps and keep moments for each leaf.

        (g, *moments) ← formula(p, g, *moments, **numbers)

    A subclass defines the same members as a subclass of ``MomentOptimizer``; its ``formula`` returns the new gradient in place of
    the param.

    State:
        step: Number of updates made, a 0-d int64 tensor.
        scalars: A 0-d float64 tensor for each name in ``scalars``.
        moments: A tree like params for each name in ``moments``, in float32 for params in half precision.

    Raises:
        ValueError: From ``update`` if the state belongs to another transform, or, with the path, if gradients do not fit it or
            are not dense floating tensors.

    >>> import torch
    >>> @frozen
    ... class Halve(MomentTransform):
    ...     moments = ()
    ...
    ...     def formula(self, p, g):
    ...         return (g / 2,)
    >>> transform = Halve()
    >>> transform.update({"w": torch.ones(2)}, transform.init({}), {})
    ({'w': tensor([0.5000, 0.5000])}, {'step': tensor(1)})
    """

    reads_params: ClassVar[bool] = False
    """Whether ``formula`` needs the params; if not, its ``p`` is the gradient, and ``update`` ignores params."""

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Grads, State]:
        carrier = params if self.reads_params else grads
        columns, new, write, counts = self._update(carrier, grads, state, carrier)
        after = [None if g is None else y for g, y in zip(columns[1], new[0], strict=True)]
        moments = [write(column) for column in new[1:]]
        return flattening.unflatten(grads, iter(after)), {**counts, **dict(zip(self._names, moments, strict=True))}
