"""Callbacks: functions that ``fit`` calls after each epoch, and ``Callback`` values with a memory.

    def callback(epoch: Epoch) -> None | stop             a function
    memory = callback.init(params)                        a Callback; checkpoints save its memory, a tree
    memory, stop | None = callback.update(memory, epoch)  after each epoch
    params = callback.params(memory, params)              the params that fit returns

A callback returns ``stop`` to end the training, or ``None`` to continue.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from funcnet.contract import Params
from funcnet.errors import add_location, describe, value_error
from funcnet.fitting.history import History
from funcnet.flattening import Tree
from funcnet.signatures import name_of
from funcnet.value import Value


class Stop:
    """The type of ``stop``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "fn.stop"

    def __reduce__(self) -> str:
        return "stop"


stop = Stop()
"""The value that a callback returns to end the training after this epoch or step."""

Verdict = Stop | None


class Epoch(NamedTuple):
    """The state of training after an epoch, which each callback receives.

    Its tensors are never written to, so a callback can keep them.

    Args:
        number: Number of epochs done, from 1.
        params: The params after the epoch.
        state: The optimizer's state.
        history: A copy of the history so far; ``history["loss"][-1]`` is the loss of this epoch.
        eval_params: The params that were evaluated, ``opt.eval_params(state, params)``.
        steps: Total number of steps done.
    """

    number: int
    params: Params
    state: Tree
    history: History
    eval_params: Params
    steps: int


class Step(NamedTuple):
    """The state of training after a step, which ``Callback.on_step`` receives.

    Its tensors are never written to, so a callback can keep them.

    Args:
        number: Total number of steps done, from 1.
        epoch: Number of the epoch, from 1.
        params: The params after the step.
        state: The optimizer's state.
        loss: The loss before the step: a tensor with one number for each part of the loss and each member of an ensemble.
    """

    number: int
    epoch: int
    params: Params
    state: Tree
    loss: Tensor


class Callback(Value):
    """Base class of callbacks with a memory, such as ``EarlyStopping``; subclass it with ``@frozen``.

    Override ``update``, or ``on_step`` to see each step. The memory is a tree of tensors, numbers and strings, which checkpoints
    save. A callback is a frozen value: ``update`` returns a new memory instead of changing attributes.

    >>> from funcnet.value import frozen
    >>> @frozen
    ... class StopBelow(Callback):
    ...     loss: float
    ...     epochs: int = 2
    ...
    ...     def init(self, params):
    ...         return 0
    ...
    ...     def update(self, memory, epoch):
    ...         memory = memory + 1 if epoch.history["loss"][-1] < self.loss else 0
    ...         return memory, stop if memory == self.epochs else None
    >>> callback, history = StopBelow(0.1), History({"loss": [0.05]})
    >>> callback.update(callback.init({}), Epoch(1, {}, (), history, {}, steps=1))
    (1, None)
    """

    __slots__ = ()

    @property
    def sees_steps(self) -> bool:
        """Whether ``fit`` calls ``on_step``; by default if the class overrides it."""
        return type(self).on_step is not Callback.on_step

    def init(self, params: Params) -> Tree:
        """Return the memory before the first epoch, by default ``None``.

        Args:
            params: The params before the first step.
        """
        del params
        return None

    def update(self, memory: Tree, epoch: Epoch) -> tuple[Tree, Verdict]:
        """Return the memory after an epoch, and ``stop`` to end the training or ``None`` to continue.

        Args:
            memory: The memory that ``init`` or the last ``update`` returned.
            epoch: The state of training.
        """
        del epoch
        return memory, None

    def on_step(self, step: Step) -> Verdict:
        """Return ``stop`` after a step to end the training, or ``None`` to continue.

        Overriding it makes steps slower: no memory is reused from step to step, and inference mode is off.

        Args:
            step: The state of training.
        """
        del step
        return None

    def params(self, memory: Tree, params: Params) -> Params:
        """Return the params that ``fit`` returns, by default the params after the last epoch.

        Args:
            memory: The memory after the last epoch.
            params: The params after the last epoch, or the params that an earlier callback returned.
        """
        del memory
        return params


CallbackLike = Callable[[Epoch], Verdict] | Callback


Memories = dict[str, Tree]
"""The memory of each ``Callback`` by its ``repr``; equal callbacks share one."""


class Callbacks:
    """The callbacks of a call of ``fit``."""

    __slots__ = ("all", "of_steps")

    all: Sequence[CallbackLike]
    of_steps: list[Callback]

    def __init__(self, given: Any) -> None:
        if not isinstance(given, (tuple, list)) or not all(callable(one) or isinstance(one, Callback) for one in given):
            rule = "callbacks must be a list of functions of an Epoch and values such as EarlyStopping(3)"
            raise value_error("fit", rule, describe(given))
        for one in given:
            if isinstance(one, type):
                raise value_error("fit", "a callback must be a function of an Epoch, or a Callback value", describe(one))
        self.all = tuple(given)
        self.of_steps = [c for c in given if isinstance(c, Callback) and c.sees_steps]

    def init(self, params: Params) -> Memories:
        """Return the memory of each callback before the first epoch."""
        return {repr(one): one.init(params) for one in self.all if isinstance(one, Callback)}

    def resumed(self, saved: Memories, params: Params) -> Memories:
        """Return the memories of a checkpoint, with fresh ones for new callbacks; warn about removed callbacks."""
        fresh = self.init(params)
        missing = [name for name, memory in saved.items() if memory is not None and name not in fresh]
        if missing:
            words = f"fit: the checkpoint holds the memory of {', '.join(missing)}, which is not among the callbacks"
            warnings.warn(words, stacklevel=4)
        return {name: saved.get(name, memory) for name, memory in fresh.items()}

    def update(self, memories: Memories, epoch: Epoch) -> tuple[Memories, bool]:
        """Call each callback after an epoch; return the new memories, and whether to stop."""
        found, verdicts = dict(memories), []
        for one in self.all:
            with _errors_of(one, f"after epoch {epoch.number}"):
                if isinstance(one, Callback):
                    found[repr(one)], verdict = _pair(one, one.update(memories[repr(one)], epoch))
                else:
                    verdict = one(epoch)
                verdicts.append(_check_verdict(one, verdict))
        return found, any(verdicts)

    def on_step(self, step: Step) -> bool:
        """Call each callback that sees steps, and return whether to stop."""
        verdicts = []
        for one in self.of_steps:
            with _errors_of(one, f"after step {step.number}"):
                verdicts.append(_check_verdict(one, one.on_step(step)))
        return any(verdicts)

    def params(self, memories: Memories, params: Params) -> Params:
        """Return the params that ``fit`` returns."""
        for one in self.all:
            params = one.params(memories[repr(one)], params) if isinstance(one, Callback) else params
        return params


def _pair(callback: Callback, answer: Any) -> tuple[Tree, Verdict]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise value_error(callback, "update must return (memory, None) or (memory, fn.stop)", describe(answer))
    return answer


def _check_verdict(callback: Any, verdict: Any) -> bool:
    """Return whether to stop; a callback must return ``None`` or ``stop``."""
    if verdict is not None and not isinstance(verdict, Stop):
        raise value_error(f"callback {_name(callback)}", "it must return None or fn.stop", describe(verdict))
    return verdict is not None


def _name(callback: Any) -> str:
    return repr(callback) if isinstance(callback, Callback) else name_of(callback)


@contextmanager
def _errors_of(callback: Any, when: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        add_location(error, f"fit, callback {_name(callback)}, {when}")
        raise
