"""MasterWeights: an optimizer for params in half precision that accumulates small steps in float32 copies."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import flattening, tree
from funcnet.contract import Grads, Params
from funcnet.errors import add_location, flag, value_error
from funcnet.flattening import Tree
from funcnet.kernels import optim as kernels
from funcnet.kernels.tracing import is_eager
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import Columns, GuardCache, is_dense, replaced
from funcnet.optim.evaluating import inner_optimizer
from funcnet.optim.misfits import explained
from funcnet.value import frozen


@frozen
class MasterWeights(Optimizer):
    """Run an optimizer on float32 copies of half-precision params, the masters, and round them to params after each step.

        w ← w if w rounded is p, else p                      w master of p, in float32
        w ← the step of ``optimizer`` from w with g in float32
        p ← w rounded to the dtype of p

    A bfloat16 number has 8 significant bits: 1 - 1e-4 rounds to 1, and such steps would never move a param. Its master moves at
    each step, and the param follows once half of its last bit has accumulated. Params in float32 and float64 have no masters.

    Params take precedence over masters: if p was changed elsewhere, for example by ``update_stats`` or by loading other weights,
    p is no longer w rounded, and the step starts from p. Save the masters with the state, or recreate them from params with
    ``init``.

    Args:
        optimizer: The optimizer that makes the steps; the transforms of a chain receive the gradients in float32.
        donated: Whether params and state may be overwritten; set by ``donate``.

    State:
        masters: A tree like params with the float32 copies, ``None`` for wider params: 4 bytes per parameter.
        optimizer: The state of the optimizer for params in float32.

    Raises:
        ValueError: If ``optimizer`` is not an optimizer; from ``update`` if the state belongs to another optimizer, or if trees
            or tensors do not fit each other.

    References:
        Micikevicius et al. 2018, "Mixed precision training", section 3.1.

    >>> import torch
    >>> from funcnet.optim.sgd import SGD
    >>> opt, params = MasterWeights(SGD(lr=1e-3)), {"w": torch.ones(1, dtype=torch.bfloat16)}
    >>> state = opt.init(params)
    >>> for _ in range(8):
    ...     params, state = opt.update({"w": torch.ones(1, dtype=torch.bfloat16)}, state, params)
    >>> params
    {'w': tensor([0.9922], dtype=torch.bfloat16)}
    """

    optimizer: Optimizer = field(validator=inner_optimizer)
    donated: bool = field(default=False, kw_only=True, validator=flag)
    _guards: GuardCache = field(init=False, eq=False, factory=GuardCache)

    @property
    def acts_on(self) -> str:
        return self.optimizer.acts_on

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        self._require_state(state)
        masters, inner = ([one[name] for one in (state, *others)] for name in ("masters", "optimizer"))
        return {"masters": f(*masters), "optimizer": self.optimizer.map_state(f, *inner)}

    def require_fit(self, state: State, params: Params) -> None:
        if not self.donated or not is_eager():
            return
        try:
            rows = zip(*flattening.flatten_together(params, state["masters"]), strict=True)
            halves = [row for row in rows if _is_half(row[0])]
            self._guards.require_apart([*map(list, zip(*halves, strict=True))], None)
        except Exception as error:
            steppable = tree.map(lambda p: p if _is_half(p) else None, params)
            raise self._explained(error, steppable, state, params) from None
        self.optimizer.require_fit(state["optimizer"], _over(params, state["masters"]))

    def rates(self, state: State) -> dict[str, Any]:
        self._require_state(state)
        return self.optimizer.rates(state["optimizer"])

    def eval_params(self, state: State, params: Params) -> Params:
        wide = self.optimizer.eval_params(state["optimizer"], _over(params, state["masters"]))
        made: Params = tree.map(lambda p, w: w.to(p.dtype), params, wide)
        return made

    def donate(self) -> "MasterWeights":
        return self.replace(optimizer=self.optimizer.donate(), donated=True)

    def init(self, params: Params) -> State:
        masters = tree.map(lambda p: p.detach().float() if _is_half(p) else None, params)
        return {"masters": masters, "optimizer": self.optimizer.init(_over(params, masters))}

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Params, State]:
        try:
            if state.keys() != {"masters", "optimizer"}:
                raise LookupError
            columns = flattening.flatten_together(params, grads, state["masters"])
            places = [i for i, (p, g) in enumerate(zip(*columns[:2], strict=True)) if g is not None and _is_half(p)]
            ready = self._check_columns([[column[i] for i in places] for column in columns])
        except Exception as error:
            raise self._explained(error, grads, state, params) from None
        return self._step_masters(columns, places, ready, grads, state, params)

    def _check_columns(self, columns: Columns) -> Columns:
        """Return params in half precision, their gradients and masters, ready for a step; raise ``LookupError`` for misfits."""
        known = self._guards.find(columns) if columns[0] else None
        if not columns[0] or (known is not None and (not self.donated or known.is_apart(columns))):
            return columns
        return self._guards.check(columns, None, self.donated)[0]

    def _step_masters(
        self, columns: Columns, places: list[int], ready: Columns, grads: Tree, state: State, params: Params
    ) -> tuple[Params, State]:
        """Make the step; an optimizer that raises has written only to tensors created here."""
        ps, gs, ms = ready
        wide = [torch.where(m.to(p.dtype) == p, m, p.float()) for p, m in zip(ps, ms, strict=True)]
        steps = replaced(columns[1], places, [g.float() for g in gs])
        from_here = replaced([p if m is None else m for p, m in zip(columns[0], columns[2], strict=True)], places, wide)
        try:
            new, inner = self.optimizer.update(_as(grads, steps), state["optimizer"], _as(params, from_here))
        except Exception as error:
            add_location(error, "MasterWeights")
            raise
        return self._round_masters(columns, places, ready, flattening.flatten_like(params, new), inner, params)

    def _round_masters(
        self, columns: Columns, places: list[int], ready: Columns, new: list[Tensor], inner: State, params: Tree
    ) -> tuple[Params, State]:
        """Return the new params and state: rounded masters for params in half precision, the optimizer's results for others."""
        ps, _, ms = ready
        masters: Sequence[Tensor] = [new[i] for i in places]
        rounded: Sequence[Tensor] = [w.to(p.dtype) for w, p in zip(masters, ps, strict=True)]
        if self.donated and places:
            kernels.write_each(ps, rounded)
            kernels.write_each(ms, masters)
            rounded, masters = ps, ms
        kept = [x if m is None else p for x, p, m in zip(new, columns[0], columns[2], strict=True)]
        after = _as(params, replaced(kept, places, rounded))
        return after, {"masters": _as(params, replaced(columns[2], places, masters)), "optimizer": inner}

    def _require_state(self, state: State) -> None:
        if not isinstance(state, dict) or state.keys() != {"masters", "optimizer"}:
            raise value_error(self, "state must be a dict of masters and optimizer, as init returns it", state)

    def _explained(self, error: Exception, grads: Tree, state: State, params: Params) -> Exception:
        """Return an error that explains what is invalid: the state, the trees, or the leaves in half precision."""
        self._require_state(state)
        return explained(self, error, params, {"grads": grads, "masters": state["masters"]}, self.donated, _is_half)


def _is_half(p: Any) -> bool:
    return is_dense(p) and kernels.is_half(p)


def _as(like: Tree, leaves: Sequence[Any]) -> Tree:
    return flattening.unflatten(like, iter(leaves))


def _over(params: Tree, masters: Tree) -> Tree:
    """Return the tree of masters, with params in place of missing ones."""
    rows = zip(*flattening.flatten_together(params, masters), strict=True)
    return _as(params, [p if m is None else m for p, m in rows])
