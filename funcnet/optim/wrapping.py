"""The base of optimizers that wrap another optimizer and add numbers and trees to its state."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Grads, Params
from funcnet.errors import flag, value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.aliasing import is_writable
from funcnet.kernels.leafwise import placed
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import Columns, GuardCache, is_dense, replaced
from funcnet.optim.evaluating import inner_optimizer
from funcnet.optim.inner import Inner
from funcnet.optim.misfits import explained
from funcnet.value import frozen, parts

Numbers = dict[str, Any]
"""Numbers by name: Python numbers in eager mode, else 0-d tensors."""

Rows = Iterable[Sequence[Tensor]]
"""For each leaf its new param, then its new entry in each of the trees."""


def _pure(value: Any, attribute: Any, got: Any) -> None:
    inner_optimizer(value, attribute, got)
    if any([getattr(part, "donated", False) for part in parts(got)]):  # noqa: C419
        raise value_error(type(value).__name__, "optimizer must not be donated; donate the wrapper instead", repr(got))


@frozen
class OptimizerWrapper(Optimizer):
    """The base of optimizers that wrap another optimizer; a subclass defines ``numbers``, ``trees`` and ``step``.

    The base class adds ``init``, absent gradients, donation, half precision of the trees, and errors with paths.

    Args:
        optimizer: The inner optimizer.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made, a 0-d int64 tensor.
        numbers: A 0-d tensor for each further name in ``numbers``.
        trees: A tree like params for each name in ``trees``, in float32 for params in half precision.
        optimizer: The state of the inner optimizer.
    """

    numbers: ClassVar[dict[str, torch.dtype]] = {"step": torch.int64}
    """The names and dtypes of the numbers, including ``step``; they start at 0."""
    trees: ClassVar[tuple[str, ...]] = ()
    """The names of the trees."""

    optimizer: Optimizer = field(validator=_pure)
    donated: bool = field(default=False, kw_only=True, validator=flag)

    _inner: Optimizer = field(init=False, eq=False)
    _guards: GuardCache = field(init=False, eq=False, factory=GuardCache)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_inner", self.optimizer.donate() if self.donated else self.optimizer)

    @abstractmethod
    def step(self, numbers: Numbers, columns: Columns, inner: Inner) -> tuple[Numbers, Rows]:
        """Return the new numbers, and for each leaf the new param and its entries in ``trees``.

        A generator of rows reuses memory.

        Args:
            numbers: The numbers of the state, with this update counted in ``step``.
            columns: The lists of params, gradients, and each of the ``trees``, of the leaves with a gradient.
            inner: The inner optimizer, which makes its step with ``inner.update`` or ``inner.update_if``.
        """

    @property
    def acts_on(self) -> str:
        return self.optimizer.acts_on

    def init(self, params: Params) -> State:
        counts = {name: torch.zeros((), dtype=dtype) for name, dtype in self.numbers.items()}
        return {**counts, **{name: self._first(name, params) for name in self.trees}, "optimizer": self.optimizer.init(params)}

    def _first(self, name: str, params: Params) -> Tree:
        return tree.map(lambda p: self.initial(name, p.detach()) if is_dense(p) else None, params)

    def initial(self, name: str, p: Tensor) -> Tensor:
        """Return the initial value of a tree: a copy of the parameter, in float32 for half precision.

        Args:
            name: The name of the tree.
            p: The parameter.
        """
        return p.to(kernels.wide(p.dtype), copy=True)

    def rates(self, state: State) -> dict[str, Any]:
        self._require_state(state)
        return self.optimizer.rates(state["optimizer"])

    def eval_params(self, state: State, params: Params) -> Params:
        self._require_state(state)
        return self.optimizer.eval_params(state["optimizer"], params)

    def donate(self) -> Self:
        return self.replace(donated=True)

    def map_state(self, f: Callable[..., Tree], state: Any, *others: Any) -> State:
        self._require_state(state)
        rows = {name: [one[name] for one in (state, *others)] for name in state}
        counts = {name: state[name].clone() if self.donated else state[name] for name in self.numbers}
        own = {name: f(*rows[name]) for name in self.trees}
        return {**counts, **own, "optimizer": self._inner.map_state(f, *rows["optimizer"])}

    def require_fit(self, state: State, params: Params) -> None:
        self._require_state(state)
        self._inner.require_fit(state["optimizer"], params)
        if not self.donated or not is_eager():
            return
        try:
            columns = flattening.flatten_together(params, *[state[name] for name in self.trees])
            self._guards.require_apart(columns, state["step"])
        except Exception as error:
            steppable = tree.map(lambda p: p if is_dense(p) else None, params)
            raise self._explained(error, steppable, state, params) from None

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        self._require_state(state)
        try:
            columns = flattening.flatten_together(params, grads, *[state[name] for name in self.trees])
            places = [i for i, g in enumerate(columns[1]) if g is not None]
            ready = self._check_columns([[column[i] for i in places] for column in columns], state["step"])
        except Exception as error:
            raise self._explained(error, grads, state, params) from None
        trees = (params, columns[0], grads, columns[1], places)
        inner = Inner(self.optimizer, self._inner, self.donated, state["optimizer"], ready[0], trees)
        now = {name: kernels.read(state[name]) for name in self.numbers}
        numbers, new = self.step({**now, "step": now["step"] + 1}, ready, inner)
        old, rows = [columns[0], *columns[2:]], zip(ready[0], *ready[2:], strict=True)
        after = [[placed(y, x, self.donated) for y, x in zip(*both, strict=True)] for both in zip(new, rows, strict=True)]
        whole = [replaced(column, places, [row[i] for row in after]) for i, column in enumerate(old)]
        params, *own = [flattening.unflatten(params, iter(column)) for column in whole]
        counts = {name: self._number(state[name], one) for name, one in numbers.items()}
        return params, {**counts, **dict(zip(self.trees, own, strict=True)), "optimizer": inner.state}

    def _check_columns(self, columns: Columns, step: Tensor) -> Columns:
        """Return the columns of leaves with a gradient, ready for a step; raise ``LookupError`` for misfits."""
        if self.donated and is_eager() and not is_writable(step):
            raise LookupError
        known = self._guards.find(columns, step) if columns[0] else None
        if known is not None and (not self.donated or known.is_apart(columns)):
            return columns
        return self._guards.check(columns, step, self.donated)[0]

    def _number(self, old: Tensor, new: Any) -> Tensor:
        """Return a number as a tensor; with ``donated``, in the memory of the old tensor."""
        made = kernels.beside(torch.as_tensor(new, dtype=old.dtype), old)
        return old.copy_(made) if self.donated else made

    def _require_state(self, state: State) -> None:
        names = [*self.numbers, *self.trees, "optimizer"]
        if not isinstance(state, dict) or {*state} != {*names}:
            raise value_error(self, f"state must be a dict of {', '.join(names)}, as init returns it", state)
        for name, dtype in self.numbers.items():
            found = state[name]
            if not isinstance(found, Tensor) or found.dim() or found.dtype is not dtype:
                raise value_error(self, f"state must have a 0-d {str(dtype)[6:]} tensor as {name}", found)

    def _explained(self, error: Exception, grads: Tree, state: State, params: Params) -> Exception:
        own = {name: state[name] for name in ("step", *self.trees)}
        return explained(self, error, params, {"grads": grads, **own}, self.donated)
