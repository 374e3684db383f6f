"""The base of optimizers that ask for the loss and its gradient at other params than the present ones."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcnet.contract import Params
from funcnet.flattening import Tree
from funcnet.optim.base import Optimizer, State

ValueAndGrads = Callable[[Params], tuple[Tensor, Tree]]
"""A function of params that returns the loss and its gradient."""


class EvaluatingOptimizer(Optimizer):
    """An optimizer whose whole step needs the loss at several params; ``train_step`` and ``fit`` call its ``step``.

    ``update`` makes the part of a step that needs no more than one gradient; each optimizer says which part that is.
    """

    __slots__ = ()

    @abstractmethod
    def step(self, value_and_grads: ValueAndGrads, state: State, params: Params) -> tuple[Params, State, Any]:
        """Return the params, the state, and the loss before the step.

        Args:
            value_and_grads: Function ``params -> (value, grads)``, which is called as often as the step needs.
            state: The state, as ``init`` makes it.
            params: The params to start from.
        """
