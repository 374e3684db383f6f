"""Monitor: a gradient transform that changes nothing and records a measure in its state."""

from collections.abc import Callable
from typing import Any

import torch
from attrs import field

from funcnet import tree
from funcnet.contract import Grads, Params
from funcnet.errors import function, value_error
from funcnet.flattening import Tree
from funcnet.kernels.aliasing import without_graph
from funcnet.optim.base import GradientTransform, State
from funcnet.optim.columns import is_count, is_dense
from funcnet.optim.misfits import require_dense
from funcnet.value import frozen


@frozen
class Monitor(GradientTransform):
    """Record a measure of the gradients at this point of a chain: ``optax.monitor``; with the identity ``optax.snapshot``.

        g ← g      measured ← f(g)

    A monitor before clipping and one after it show how much is clipped; ``Monitor(lambda g: g)`` records the gradients
    themselves. The measure is part of the step and is compiled with it.

    Args:
        measure: f, a function from the tree of gradients to a tensor, or a tree of tensors, of fixed shapes. The default is the
            joint norm of all gradients.

    State:
        step: Number of updates made.
        measured: f(g) of the last update; initially f of zeros.

    Raises:
        ValueError: If ``measure`` is not a function; from ``update`` if the state belongs to another transform.

    References:
        ``optax.monitor``.

    >>> from funcnet.optim.chaining import chain
    >>> from funcnet.optim.clipping import ClipByGlobalNorm
    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = chain(Monitor(), ClipByGlobalNorm(1.0), SGD(lr=0.1)), {"w": torch.ones(4)}
    >>> _, state = opt.update({"w": torch.full((4,), 5.0)}, opt.init(params), params)
    >>> state[0]["measured"]
    tensor(10., dtype=torch.float64)
    """

    measure: Callable[[Any], Any] = field(default=tree.norm, validator=function)

    def init(self, params: Params) -> State:
        zeros = tree.map(lambda p: torch.zeros_like(p.detach()) if is_dense(p) else None, params)
        return {"step": torch.zeros((), dtype=torch.int64), "measured": self.measure(zeros)}

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Grads, State]:
        if not isinstance(state, dict) or state.keys() != {"step", "measured"} or not is_count(state["step"]):
            raise value_error(self, "state must be a dict of step and measured, as init returns it", state)
        require_dense(self, grads)
        grads = tree.map(without_graph, grads)
        return grads, {"step": state["step"] + 1, "measured": self.measure(grads)}

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state unchanged, since its trees need not be like params.

        Args:
            f: A function, which is not called.
            state: The state.
            others: Further states, which are ignored.
        """
        return state
