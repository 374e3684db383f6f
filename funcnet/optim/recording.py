"""Recording: sums of the norms of gradients and updates, in the state of any optimizer.

    recorder = recorded(opt)
    state = recorder.wrap(opt_state)
    ...
    params, state = recorder.update(grads, state, params)          equal to the step of ``opt`` bit for bit
    ...
    norms, state = recorder.read(state)                            means since the last ``read``, as numbers

    grad_norm     mean of ‖g‖ over the updates                     g without the factor of a LossScale
    update_norm   mean of ‖p_new - p_old‖

Each norm is over all leaves with a gradient. It stays a tensor until ``read``: no step waits for a device.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Grads, Params
from funcnet.errors import flag, instances, value_error
from funcnet.flattening import Tree, flatten_together
from funcnet.kernels.aliasing import without_graph
from funcnet.kernels.leaf_norms import norm_of_difference
from funcnet.kernels.optim import beside, norm_of_all, wide
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import is_dense
from funcnet.optim.evaluating import EvaluatingOptimizer, ValueAndGrads
from funcnet.optim.transforms.loss_scale import LossScale
from funcnet.value import frozen, parts

Before = list[Tensor | None]
"""The leaves of params before a step, ``None`` without a gradient."""

_DTYPES = {"steps": torch.int64, "overflows": torch.int64, "grad_norm": torch.float64, "update_norm": torch.float64}


@frozen
class Recorder(Optimizer):
    """An optimizer that also sums norms; made by ``recorded``.

        p ← the step of ``optimizer``
        grad_norm ← grad_norm + ‖g‖      update_norm ← update_norm + ‖p_new - p_old‖

    Args:
        optimizer: The optimizer that makes the steps. If it writes to params, they are copied first.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        optimizer: The state of the optimizer.
        steps: Number of updates since the last ``read``, like the others a 0-d tensor.
        grad_norm: Sum of the norms of the gradients.
        update_norm: Sum of the norms of the changes of params.
        overflows: Number of infinite gradients caused by a ``LossScale``; the mean skips them.

    Raises:
        ValueError: If the state belongs to another optimizer, and whenever ``optimizer`` raises one.
    """

    optimizer: Optimizer = field(validator=instances(Optimizer, "an optimizer"))
    donated: bool = field(default=False, kw_only=True, validator=flag)
    _writes: bool = field(init=False, eq=False)
    _is_scaled: bool = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        found = list(parts(self.optimizer))
        writes = self.donated or any([getattr(part, "donated", False) for part in found])  # noqa: C419
        object.__setattr__(self, "_writes", writes)
        object.__setattr__(self, "_is_scaled", any([isinstance(part, LossScale) for part in found]))  # noqa: C419

    def wrap(self, state: State) -> State:
        """Return the recorder's state, with sums of 0, around a state of the optimizer.

        Args:
            state: The state of the optimizer.
        """
        return {"optimizer": state, **{name: torch.zeros((), dtype=dtype) for name, dtype in _DTYPES.items()}}

    def read(self, state: State) -> tuple[dict[str, float], State]:
        """Return the mean norms since the last ``read``, NaN without an update, and the state with sums of 0.

        Args:
            state: The state of the recorder.
        """
        self._require_state(state)
        steps = int(state["steps"])
        counts = {"grad_norm": steps - int(state["overflows"]), "update_norm": steps}
        means = {name: float(state[name]) / count if count else nan for name, count in counts.items()}
        return means, {"optimizer": state["optimizer"], **{name: torch.zeros_like(state[name]) for name in _DTYPES}}

    def init(self, params: Params) -> State:
        return self.wrap(self.optimizer.init(params))

    def update(self, grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        self._require_state(state)
        before, scale = self._before(grads, params), self._scale(state)
        new, inner = self.optimizer.update(grads, state["optimizer"], params)
        return new, self._add_norms(state, inner, self._norm(grads, scale), before, new)

    def _before(self, grads: Tree, params: Params) -> Before:
        """Return the params that the step will change, as copies if it writes to them."""
        rows = zip(*flatten_together(params, grads), strict=True)
        return [self._copy_if_written(p) if g is not None and is_dense(p) else None for p, g in rows]

    def _copy_if_written(self, p: Tensor) -> Tensor:
        return p.detach().to(wide(p.dtype), copy=self._writes)

    def _scale(self, state: State) -> Any:
        """Return the loss scale by which the next gradients are multiplied."""
        return self.optimizer.rates(state["optimizer"]).get("loss_scale", 1.0) if self._is_scaled else 1.0

    def _norm(self, grads: Tree, scale: Any) -> Tensor:
        norm = self.norm_of_all([without_graph(g) for g in tree.leaves(grads)])
        return norm / beside(scale, norm) if isinstance(scale, Tensor) else norm

    def norm_of_all(self, gs: Sequence[Tensor]) -> Tensor:
        """Return the joint norm of the gradients.

        Args:
            gs: The gradients.
        """
        return norm_of_all(gs)

    def norm_of_difference(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
        """Return the joint norm of the changes of params.

        Args:
            before: The params before the step.
            after: The params after the step.
        """
        return norm_of_difference(before, after, overwrite=self._writes)

    def _add_norms(self, state: Any, inner: State, norm: Tensor, before: Before, new: Params) -> State:
        """Return the new state, with the norms of this step added to the sums."""
        pairs = [(p, q) for p, q in zip(before, *flatten_together(new), strict=True) if p is not None]
        moved = self.norm_of_difference([p for p, _ in pairs], [q for _, q in pairs])
        added = {"grad_norm": norm, "update_norm": moved}
        if self._is_scaled:
            finite = norm.isfinite()
            added |= {"grad_norm": torch.where(finite, norm, 0.0), "overflows": (~finite).long()}
        sums = {name: beside(state[name], one) + one for name, one in added.items()}
        return {**state, "optimizer": inner, "steps": state["steps"] + 1, **sums}

    def _require_state(self, state: State) -> None:
        if not isinstance(state, dict) or state.keys() != {"optimizer", *_DTYPES}:
            raise value_error(self, f"state must be a dict of optimizer, {', '.join(_DTYPES)}, as wrap returns it", state)

    def rates(self, state: State) -> dict[str, Any]:
        self._require_state(state)
        return self.optimizer.rates(state["optimizer"])

    def eval_params(self, state: State, params: Params) -> Params:
        self._require_state(state)
        return self.optimizer.eval_params(state["optimizer"], params)

    def donate(self) -> Optimizer:
        return self.replace(optimizer=self.optimizer.donate(), donated=True)

    def map_state(self, f: Callable[..., Tree], state: Any, *others: Any) -> State:
        self._require_state(state)
        return {**state, "optimizer": self.optimizer.map_state(f, *[one["optimizer"] for one in (state, *others)])}

    def require_fit(self, state: State, params: Params) -> None:
        self._require_state(state)
        self.optimizer.require_fit(state["optimizer"], params)


@frozen
class EvaluatingRecorder(Recorder, EvaluatingOptimizer):
    """A recorder of an ``EvaluatingOptimizer``; it records the gradient at the params before the step.

    Args:
        optimizer: The optimizer that makes the steps. If it writes to params, they are copied first.
        donated: Whether params and state may be overwritten; set by ``donate``.
    """

    optimizer: EvaluatingOptimizer = field(validator=instances(EvaluatingOptimizer, "an optimizer that asks for gradients"))

    def step(self, value_and_grads: ValueAndGrads, state: State, params: Params) -> tuple[Params, State, Any]:
        self._require_state(state)
        scale, first = self._scale(state), list[tuple[Tensor, Before]]()

        def watched(at: Params) -> tuple[Tensor, Tree]:
            value, grads = value_and_grads(at)
            if not first:
                first.append((self._norm(grads, scale), self._before(grads, params)))
            return value, grads

        new, inner, value = self.optimizer.step(watched, state["optimizer"], params)
        ((norm, before),) = first
        return new, self._add_norms(state, inner, norm, before, new), value


def recorded(opt: Optimizer) -> Recorder:
    """Make an optimizer with the steps of ``opt``, bit for bit, that also sums the norms of gradients and updates.

    Args:
        opt: The optimizer.

    >>> from funcnet.optim.sgd import SGD
    >>> recorder, params = recorded(SGD(lr=0.5)), {"w": torch.zeros(4)}
    >>> _, state = recorder.update({"w": torch.ones(4)}, recorder.init(params), params)
    >>> recorder.read(state)[0]
    {'grad_norm': 2.0, 'update_norm': 1.0}
    """
    return EvaluatingRecorder(opt) if isinstance(opt, EvaluatingOptimizer) else Recorder(opt)
