"""The contract of optimizers and of gradient transforms.

    init(params) -> state                              complete before the first step
    update(grads, state, params) -> (params, state)    an optimizer: one step
    update(grads, state, params) -> (grads, state)     a gradient transform, which precedes an optimizer in a chain

1.  Pure. Equal arguments give equal bits, and no argument is written to, unless it was given up with ``donate``.
2.  State is a tree of tensors whose structure, shapes and dtypes no update changes. It can be saved, compared and compiled
    like params, and a run resumed from a saved state equals the uninterrupted run, bit for bit. ``tree.names``,
    ``tree.at`` and ``tree.replace`` read and write its leaves by name: ``"exp_avg.0.weight"``, or for optimizers of
    several parts ``"1.exp_avg.0.weight"`` and ``"optimizer.exp_avg.0.weight"``.
3.  A leaf whose gradient is ``None`` does not change, and neither does its state. For a leaf of params that is not
    floating, like a counter, the state holds ``None``. Averages of params are the exception: they follow every leaf. The step
    counts updates, not the gradients of a leaf: if the first gradient of a leaf comes at update 6, its bias is corrected as at
    step 6. torch.optim counts the gradients of each leaf and corrects as at step 1.
4.  Shapes, dtypes, devices and structure of params are kept.
5.  A rate is a number, a 0-d tensor, or a schedule: a function of the number of updates made before, 0 at the first. In eager
    mode it is called with an int, in compiled code and under ``vmap`` with a 0-d tensor. ``rates(state)`` returns the rates of
    the next update by name.
6.  No graph: in eager mode the results of ``update`` never require a gradient, as if its arguments were detached. To
    differentiate through a step, use the transforms of ``torch.func``.
7.  All checks precede the first write: an update that rejects its arguments has written nothing, donated or not.
8.  All of this works under ``torch.compile(fullgraph=True)``, ``torch.func.vmap`` and on the meta device.
9.  ``acts_on`` says what the step of an element depends on: ``"elements"``, only the gradient and the moments of that element;
    ``"leaves"``, its whole leaf; ``"tree"``, the default, all leaves, as with a norm of all gradients. Unless it is ``"tree"``,
    updating a part of params, with the same part of the state from ``map_state``, gives the same result as updating all of them.
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

State: TypeAlias = annotations.StateDict | annotations.StateTuple
"""The state of an optimizer or gradient transform: a tree of tensors whose structure, shapes and dtypes no update changes."""


class GradientTransform(Value, ABC):
    """The base of gradient transforms: a frozen value with ``init`` and ``update``; subclass it with ``@frozen``.

        g ← f(g)        in a ``chain``, before the optimizer

    A transform keeps the sign of the gradient, because the optimizer at the end of the chain subtracts.

    >>> import torch
    >>> from funcnet import tree
    >>> from funcnet.value import frozen
    >>> @frozen
    ... class Halve(GradientTransform):
    ...     def update(self, grads, state, params):
    ...         return tree.map(lambda g: g / 2, grads), state
    >>> Halve().update({"w": torch.ones(2)}, {}, {})[0]
    {'w': tensor([0.5000, 0.5000])}
    """

    __slots__ = ()

    @property
    def acts_on(self) -> str:
        """The scope on which the new gradient of an element depends: ``"elements"``, ``"leaves"``, or the whole ``"tree"``."""
        return "tree"

    def init(self, params: Params) -> State:
        """Return the state before the first step; ``{}`` for a transform without state.

        Args:
            params: The params of the net.
        """
        return {}

    @abstractmethod
    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        """Return the gradients for the next part of the chain, and the state.

        Args:
            grads: The gradients, a tree like params with ``None`` for leaves without a gradient.
            state: The state that ``init`` or the last ``update`` returned.
            params: The params.
        """

    def rates(self, state: State) -> dict[str, Any]:
        """Return the rates that the next update will use, by name; ``{}`` for a transform without rates.

        Args:
            state: The state that ``init`` or the last ``update`` returned.
        """
        return {}

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` applied to each tree in it that is like params; see ``Optimizer.map_state``.

        Args:
            f: A function of a tree like params, and of one tree for each of ``others``.
            state: The state.
            others: Further states of this transform.
        """
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
    """The base of optimizers: a frozen value whose ``update`` makes one step; subclass it with ``@frozen``.

    ``MomentOptimizer`` is the easier base for an optimizer with a formula for each leaf.

    >>> import torch
    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = SGD(lr=0.1), {"w": torch.ones(2)}
    >>> params, state = opt.update({"w": torch.ones(2)}, opt.init(params), params)
    >>> params, opt.rates(state)["lr"]
    ({'w': tensor([0.9000, 0.9000])}, 0.1)
    """

    __slots__ = ()

    @property
    def acts_on(self) -> str:
        """The scope on which the step of an element depends: ``"elements"``, ``"leaves"``, or the whole ``"tree"``."""
        return "tree"

    @abstractmethod
    def init(self, params: Params) -> State:
        """Return the state before the first step.

        Args:
            params: The params of the net.
        """

    @abstractmethod
    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        """Return the params and the state after a step.

        Args:
            grads: The gradients, a tree like params with ``None`` for leaves without a gradient.
            state: The state that ``init`` or the last ``update`` returned.
            params: The params before the step.
        """

    def rates(self, state: State) -> dict[str, Any]:
        """Return the rates that the next update will use, by name: ``{"lr": 0.1}``.

        Args:
            state: The state that ``init`` or the last ``update`` returned.
        """
        return {}

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the params to evaluate and to save: ``params``, or the average that an optimizer like ``Averaged`` keeps.

        They can share memory with ``params`` and ``state``: copy them before a donated optimizer makes the next step.

        Args:
            state: The state of the optimizer.
            params: The params in training.
        """
        return params

    @classmethod
    def _when_frozen(cls) -> None:
        """Make ``eval_params`` of funcnet's classes explain why a state or params are invalid."""
        super()._when_frozen()
        if "eval_params" in cls.__dict__ and cls.__module__.startswith("funcnet."):
            cls.eval_params = _explaining(cls.eval_params)  # type: ignore[method-assign]

    def donate(self) -> "Optimizer":
        """Return the form of the optimizer that may write to its ``params`` and ``state``; itself if there is none."""
        return self

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` applied to each tree in it that is like params, and the rest unchanged.

        It selects the state of one layer from that of a net: ``opt.map_state(lambda moments: moments[0], state)``. By default a
        state is a dict: its tensors are counts, its other entries are trees like params.

        Args:
            f: A function of a tree like params, and of one tree for each of ``others``.
            state: The state.
            others: Further states of this optimizer.
        """
        return _mapped(self, f, state, *others)

    def require_fit(self, state: State, params: Params) -> None:
        """Raise what ``update`` would raise for this state and these params, before a donated optimizer writes to any part.

        Args:
            state: The state of the optimizer.
            params: The params.
        """


def _mapped(who: Any, f: Callable[..., Tree], state: State, *others: State) -> State:
    if not isinstance(state, dict):
        rule = "a class whose state is not a dict of counts and of trees like params must define map_state"
        raise value_error(who, rule, describe(state))
    rows = {name: [one, *[other[name] for other in others]] for name, one in state.items()}
    return {name: row[0] if isinstance(row[0], Tensor) else f(*row) for name, row in rows.items()}
