"""Inner: the step of a wrapped optimizer, on lists of the leaves that have a gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet import flattening, tree
from funcnet.errors import add_location
from funcnet.flattening import Tree
from funcnet.kernels.optim import beside
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import replaced

Leaves = Sequence[Tensor]
Trees = tuple[Tree, list[Any], Tree, list[Any], list[int]]
"""Params and their leaves, gradients and their leaves, and the indices of the leaves with a gradient."""


class Inner:
    """The inner optimizer during one update. ``update`` replaces its ``state``."""

    def __init__(self, pure: Optimizer, given: Optimizer, donated: bool, state: State, ps: Leaves, trees: Trees) -> None:
        """Store the optimizer in its pure form and, if ``donated``, in the form that writes to its arguments."""
        self.pure, self.given, self.donated, self.state, self.ps, self.trees = pure, given, donated, state, ps, trees

    def rate(self, name: str) -> Any:
        """Return a rate of the next step, or 1 if the optimizer has none of this name."""
        return self.pure.rates(self.state).get(name, 1.0)

    def update(self, gs: Leaves, ps: Leaves | None = None) -> Leaves:
        """Make a step with gradients, from ``ps`` if given, and return the new params."""
        return self._update(self.given, gs, ps)

    def update_if(self, condition: Any, gs: Callable[[], Leaves]) -> Leaves:
        """Make a step if ``condition``, a bool or a 0-d tensor, is true; otherwise change nothing."""
        if not isinstance(condition, Tensor):
            return self.update(gs()) if condition else self.ps
        old = self.state
        new = self._update(self.pure, gs(), None)
        self.state = tree.map(lambda x, y: self._choose(condition, x, y), self.state, old)
        return [torch.where(beside(condition, p), q, p) for q, p in zip(new, self.ps, strict=True)]

    def _choose(self, condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
        """Return the new or the old tensor of a state; with ``donated``, in the memory of the old tensor."""
        one = torch.where(beside(condition, old), new, old)
        return old.copy_(one) if self.donated else one

    def _update(self, optimizer: Optimizer, gs: Leaves, ps: Leaves | None) -> Leaves:
        params, leaves, grads, column, places = self.trees
        start = params if ps is None else flattening.unflatten(params, iter(replaced(leaves, places, ps)))
        steps = flattening.unflatten(grads, iter(replaced(column, places, gs)))
        try:
            new, self.state = optimizer.update(steps, self.state, start)
        except Exception as error:
            add_location(error, "its inner optimizer")
            raise
        after = flattening.flatten_like(params, new)
        return [after[i] for i in places]
