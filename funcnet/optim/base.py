"""The contract of optimizers and of gradient transforms.

    init(params) -> state                              complete before the first step
    update(grads, state, params) -> (params, state)    an optimizer: one step
    update(grads, state, params) -> (grads, state)     a gradient transform, which stands before an optimizer in a chain

1.  Pure. The same arguments give the same bits, and no argument is written to, unless it was given up by ``donate``.
2.  State is a tree of tensors whose structure, shapes and dtypes no update changes. So it is saved, compared and compiled
    like params, and a run that goes on from a saved state is the run that was never interrupted, bit for bit. ``tree.names``,
    ``tree.at`` and ``tree.replace`` read and write its leaves by name: ``"exp_avg.0.weight"``, and within
    optimizers of several parts ``"1.exp_avg.0.weight"`` and ``"optimizer.exp_avg.0.weight"``.
3.  A leaf whose gradient is ``None`` stays as it is, and so does all that state holds for it. For a leaf of params that is not
    floating, such as a counter, state holds ``None``. An average of params is the exception: it follows every leaf. The step
    counts updates, not the gradients of a leaf: where its first one comes at update 6, it is corrected for as at step 6, and not
    as at step 1, which torch.optim counts for each leaf.
4.  Shapes, dtypes, devices and structure of params are kept.
5.  A rate is a number, a 0-d tensor, or a schedule: a function of the number of updates made before, so 0 at the first. In eager
    mode it is called with an int, in compiled code and under ``vmap`` with a 0-d tensor. ``rates(state)`` has the rates of the
    next update by name.
6.  No graph: in eager mode what ``update`` returns requires no gradient, whatever comes in, as if it had been detached. To
    differentiate through a step, use the transforms of ``torch.func``.
7.  Refused before written: an update that raises an error for what it got has written to nothing, donated or not.
8.  All of it works under ``torch.compile(fullgraph=True)``, ``torch.func.vmap`` and on the meta device.
9.  ``acts_on`` says what the step of a number depends on: ``"elements"``, on its own gradient and moments only; ``"leaves"``, on
    the leaf that it is in; ``"tree"``, the default, on all leaves, as with a norm of all gradients. Unless it is ``"tree"``, an
    update of a part of params, with the part of the state that ``map_state`` takes, is that part of the whole update.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from funcnet import annotations
from funcnet.contract import Grads, Params
from funcnet.errors import add_location, describe, explains, value_error
from funcnet.flattening import Tree
from funcnet.value import Value

State: TypeAlias = annotations.State
"""The state of an optimizer or of a gradient transform; see ``annotations``."""


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
    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        """Return the gradients for the next in the chain, and the state."""

    def rates(self, state: State) -> dict[str, Any]:
        """Return the rates that the next update will use, by name; ``{}`` for a transform without any."""
        return {}

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` of each tree in it that is like params; see ``Optimizer.map_state``."""
        return _mapped(self, f, state, *others)


def _explaining(eval_params: Callable[..., Params]) -> Callable[..., Params]:
    @functools.wraps(eval_params)
    def explaining(self: Any, state: State, params: Params) -> Params:
        try:
            return eval_params(self, state, params)
        except Exception as error:
            if explains(error):
                add_location(error, f"{self!r}, eval_params")
                raise
            rule = "state and params must be of this optimizer, as init and update return them"
            raise value_error(self, rule, f"{describe(state)} and {describe(params)}") from error

    return explaining


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
    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        """Return the params and the state after a step."""

    def rates(self, state: State) -> dict[str, Any]:
        """Return the rates that the next update will use, by name: ``{"lr": 0.1}``."""
        return {}

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the params to evaluate and to save: ``params``, or the average of an optimizer that has one, as ``Averaged``.

        They may share memory with ``params`` and ``state``: copy them before a donated optimizer makes the next step.
        """
        return params

    @classmethod
    def _when_frozen(cls) -> None:
        """Let ``eval_params`` of our own classes say what is wrong with a state or params."""
        super()._when_frozen()
        if "eval_params" in cls.__dict__ and cls.__module__.startswith("funcnet."):
            cls.eval_params = _explaining(cls.eval_params)  # type: ignore[method-assign]

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
