"""The base of optimizers that evaluate the loss and its gradient at several params per step."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from funcnet.contract import Params
from funcnet.errors import instances, made_by, value_error
from funcnet.flattening import Tree
from funcnet.optim.base import Optimizer, State
from funcnet.value import parts

ValueAndGrads = Callable[[Params], tuple[Tensor, Tree]]
"""A function from params to the loss and its gradient."""


class EvaluatingOptimizer(Optimizer):
    """An optimizer whose step evaluates the loss at several params; ``train_step`` and ``fit`` call its ``step``.

    ``update`` makes the part of a step that needs a single gradient; each optimizer documents that part.
    """

    __slots__ = ()

    reads_values: ClassVar[bool] = False
    """Whether ``step`` reads values as Python numbers and cannot be compiled."""

    @abstractmethod
    def step(self, value_and_grads: ValueAndGrads, state: State, params: Params) -> tuple[Params, State, Any]:
        """Return the params, the state, and the loss before the step.

        Args:
            value_and_grads: Function ``params -> (value, grads)``, called as often as the step needs.
            state: The state that ``init`` or the last ``step`` returned.
            params: The params before the step.
        """


def inner_optimizer(value: Any, attribute: Any, got: Any) -> None:
    """Validate an optimizer of which only ``update`` will be called, which is not a whole step of an ``EvaluatingOptimizer``."""
    instances(Optimizer, "an optimizer")(value, attribute, got)
    found = [part for part in parts(got) if isinstance(part, EvaluatingOptimizer)]
    if found:
        rule = "an optimizer that asks for several gradients must be the outermost, where train_step calls its step"
        raise value_error(made_by(type(value)), rule, repr(found[0]))
