"""Lookahead: slow params that follow the fast params of another optimizer."""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.errors import number, whole
from funcnet.optim.base import State
from funcnet.optim.columns import Columns
from funcnet.optim.inner import Inner, Leaves
from funcnet.optim.wrapping import Numbers, OptimizerWrapper, Rows
from funcnet.value import frozen


@frozen
class Lookahead(OptimizerWrapper):
    """Run an optimizer; every k steps, move slow params towards its params and continue from them: ``optax.lookahead``.

        p ← the step of ``optimizer``
        every k updates:  s ← s + α (p - s)      p ← s

    p are the fast params. Evaluate with the slow params s, which ``opt.eval_params(state, params)`` returns.

    Args:
        optimizer: The optimizer that makes the fast steps.
        sync_period: k, the number of fast updates per update of the slow params.
        slow_step_size: α, the fraction of the distance to the fast params by which the slow params move.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        step: Number of updates made.
        slow: s, like params.
        optimizer: The state of the optimizer.

    Raises:
        ValueError: If an argument is outside its bounds.

    References:
        Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back", algorithm 1.

    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = Lookahead(SGD(lr=0.1), sync_period=2), {"w": torch.ones(1)}
    >>> state = opt.init(params)
    >>> for _ in range(2):
    ...     params, state = opt.update({"w": torch.ones(1)}, state, params)
    >>> params
    {'w': tensor([0.9000])}
    """

    trees = ("slow",)

    sync_period: int = field(default=5, validator=whole(1))
    slow_step_size: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    def step(self, numbers: Numbers, columns: Columns, inner: Inner) -> tuple[Numbers, Rows]:
        ps, slow, synced = inner.update(columns[1]), columns[2], numbers["step"] % self.sync_period == 0
        if synced is False:
            return numbers, zip(ps, slow, strict=True)
        new = [s + self.slow_step_size * (p.to(s.dtype) - s) for p, s in zip(ps, slow, strict=True)]
        fast = [s.to(p.dtype, copy=True) for s, p in zip(new, ps, strict=True)]  # a donated update may write to both
        return numbers, zip(_where(synced, fast, ps), _where(synced, new, slow), strict=True)

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the slow params in the dtypes of ``params``, with the leaves of ``params`` that the optimizer does not step.

        Args:
            state: The state of the optimizer.
            params: The params in training.
        """
        self._require_state(state)
        slow = tree.names(state["slow"])
        made: Params = tree.map_with_path(lambda path, p: slow[path].to(p.dtype) if path in slow else p, params)
        return made


def _where(condition: Any, new: Leaves, old: Leaves) -> Leaves:
    """Return the new leaves if the condition is ``True``; choose element-wise if it is a tensor."""
    if not isinstance(condition, Tensor):
        return new
    return [torch.where(condition.to(x.device), y.to(x.dtype), x) for y, x in zip(new, old, strict=True)]
