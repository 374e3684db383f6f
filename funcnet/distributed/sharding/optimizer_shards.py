"""Sharded optimizers: each worker has only the state for its pieces of the params, and updates these pieces.

    pᵣ, sᵣ ← optimizer(pᵣ, gᵣ, sᵣ)      for the pieces pᵣ, gᵣ and sᵣ of worker r
    p ← all pᵣ                          gathered in a few flat tensors

``shard_plans`` defines the rows of each worker and their messages, ``over_workers`` computes quantities of all gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Grads, Params
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.pieces import Piece, Pieces, pieces_of, with_pieces
from funcnet.distributed.sharding.shard_plans import Plan, Plans, gathered
from funcnet.distributed.workers import Workers, workers_of
from funcnet.errors import add_location, describe, flag, value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.optim.base import Optimizer, State
from funcnet.optim.evaluating import EvaluatingOptimizer
from funcnet.paths import named_leaves
from funcnet.value import frozen, parts

__all__ = ["Piece", "Pieces", "ShardedOptimizer", "pieces_of", "shard_optimizer", "with_pieces"]


def _can_be_sharded(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, Optimizer):
        raise value_error("shard_optimizer", "it must be an optimizer", describe(got))
    evaluating = [part for part in parts(got) if isinstance(part, EvaluatingOptimizer)]
    if evaluating:
        rule = (
            "an optimizer that evaluates several gradients must wrap it, as in SAM(shard_optimizer(opt)); LBFGS cannot be sharded"
        )
        raise value_error("shard_optimizer", rule, repr(evaluating[0]))
    if any([getattr(part, "donated", False) for part in parts(got)]):  # noqa: C419
        raise value_error("shard_optimizer", "the inner optimizer must not be donated; donate the sharded optimizer", repr(got))
    over_workers(got, Workers(None, 0, 2))  # raises for parts without a rule for several workers


@frozen
class ShardedOptimizer(Optimizer):
    """An optimizer whose state is divided among workers; created with ``shard_optimizer``.

        pᵣ, sᵣ ← optimizer(pᵣ, gᵣ, sᵣ)      for the pieces pᵣ, gᵣ and sᵣ of worker r
        p ← all pᵣ

    Args:
        optimizer: The optimizer that steps the pieces.
        group: The process group; by default all processes.
        donated: Whether params and state may be overwritten; set by ``donate``.
        takes_pieces: Whether gradients are already this worker's pieces; set by ``of_pieces``.

    State:
        ``Pieces(tree, rows)``: the state of this worker's pieces, and the marks of their rows.
    """

    label = "shard_optimizer"

    optimizer: Optimizer = field(validator=_can_be_sharded)
    group: Any = field(default=None, repr=False, eq=False)
    donated: bool = field(default=False, kw_only=True, validator=flag)
    takes_pieces: bool = field(default=False, kw_only=True, validator=flag)
    _given: Optimizer = field(init=False, eq=False)
    _plans: Plans = field(init=False, eq=False, factory=Plans)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_given", self.optimizer.donate() if self.donated else self.optimizer)

    @property
    def workers(self) -> Workers:
        """The workers that share the state."""
        return workers_of("shard_optimizer", self.group)

    def plan(self, params: Params) -> Plan:
        """Return the plan of params: the rows of each worker.

        Args:
            params: Whole params.
        """
        return self._plans.of(self._given, params, self.workers)

    def of_pieces(self) -> "ShardedOptimizer":
        """Return the optimizer for gradients that are already this worker's pieces, empty for a leaf without rows here."""
        return self.replace(takes_pieces=True)

    def init(self, params: Params) -> State:
        plan = self.plan(params)
        whole, state = self.optimizer.init(plan.whole), plan.optimizer.init(plan.pieces(params))
        made: list[Tree] = []

        def marks(pieces: Tree, of_all: Tree) -> Tree:
            made.append(plan.marks(pieces, of_all))
            return made[-1]

        found, own = self.optimizer.map_state(marks, state, whole), {id(one) for one in tree.leaves(made)}
        return Pieces(state, tree.map(lambda one: one if id(one) in own else None, found))

    def update(self, grads: Grads, state: Any, params: Params) -> tuple[Params, State]:
        plan, inner = self.plan(params), self._inner(state)
        gs = self._gradients(plan, grads, params)
        has_gradient = [g is not None for g in flatten_together(plan.whole, grads)[1]]
        try:
            new, after = plan.optimizer.update(gs, inner, plan.pieces(params))
        except Exception as error:
            add_location(error, f"shard_optimizer, rank {plan.workers.rank}")
            raise
        return self._gathered(plan, new, params, has_gradient, writes=self.donated), Pieces(after, state.rows)

    def _gradients(self, plan: Plan, grads: Tree, params: Params) -> Tree:
        """Return this worker's pieces of the gradients, which a reducer may already have computed."""
        if self.takes_pieces:
            rows = zip(plan.cuts, flatten_together(plan.whole, grads)[1], strict=True)
            own = [g if g is not None and cut is not None and cut.rows[plan.workers.rank][1] else None for cut, g in rows]
            return unflatten(plan.whole, iter(own))
        for i, (cut, p, g) in enumerate(zip(plan.cuts, *flatten_together(params, grads), strict=True)):
            if g is not None and (cut is None or not isinstance(g, Tensor) or g.shape != p.shape):
                path, _ = [*named_leaves("", params)][i]
                rule = f"the same as params, {describe(p)}" if cut else f"None, where params has {describe(p)}"
                raise value_error(self, f"grads must have at {path!r} {rule}", describe(g))
        return plan.pieces(grads)

    def _gathered(self, plan: Plan, pieces: Tree, params: Params, wanted: Sequence[bool], *, writes: bool) -> Params:
        """Return the wanted params from the pieces of all workers, and the others unchanged."""
        ps, own = flatten_together(params, pieces)
        made: Params = unflatten(params, iter(gathered(plan, own, ps, tuple(wanted), writes=writes)))
        return made

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the params to evaluate; every worker must call it, because averages are gathered from all.

        Args:
            state: The state of this worker.
            params: Whole params.
        """
        plan, inner = self.plan(params), self._inner(state)
        pieces = plan.pieces(params)
        found = plan.optimizer.eval_params(inner, pieces)
        if found is pieces:
            return params
        return self._gathered(plan, found, params, [True] * len(plan.cuts), writes=False)

    def rates(self, state: State) -> dict[str, Any]:
        return self.optimizer.rates(self._inner(state))

    def donate(self) -> "ShardedOptimizer":
        return self.replace(donated=True)

    def map_state(self, f: Callable[..., Tree], state: Any, *others: Any) -> State:
        """Return the state with ``f`` applied to each tree of pieces in it.

        Args:
            f: A function of trees like this worker's pieces.
            state: The state.
            others: Other states, whose trees are further arguments of ``f``.
        """
        inner = [self._inner(one) for one in (state, *others)]
        return Pieces(self._given.map_state(f, *inner), state.rows)

    def require_fit(self, state: State, params: Params) -> None:
        plan = self.plan(params)
        plan.optimizer.require_fit(self._inner(state), plan.pieces(params))

    def _inner(self, state: State) -> Any:
        if not isinstance(state, Pieces):
            raise value_error(self, "state must be that of this worker's pieces, as init returns it", describe(state))
        return state.tree

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.optimizer, self.group, self.donated, self.takes_pieces)

    def __repr__(self) -> str:
        return f"shard_optimizer({self.optimizer!r})"


def _made(optimizer: Optimizer, group: Any, donated: bool, takes_pieces: bool) -> ShardedOptimizer:
    return ShardedOptimizer(optimizer, group, donated=donated, takes_pieces=takes_pieces)


def shard_optimizer(opt: Optimizer, group: Any = None) -> ShardedOptimizer:
    """Divide the state of an optimizer among workers: each has the state for its pieces of the params, and updates these pieces.

        pᵣ, sᵣ ← opt(pᵣ, gᵣ, sᵣ)      for the pieces pᵣ, gᵣ and sᵣ of worker r
        p ← all pᵣ

        opt = distributed.shard_optimizer(fn.AdamW(1e-3))
        step = distributed.data_parallel(fn.train_step(net, loss, opt))
        state = opt.init(params)

    The memory of the state, and the time of the update, are those of one process divided by the number of workers. Params are
    whole on every worker. Under ``data_parallel`` each worker gets only the sum of its pieces of the gradients, in the same
    buckets and as early; the new params are gathered after the step, with a second collective for each dtype. In a custom loop,
    pass ``update`` whole gradients that are equal on all workers.

    Leaves are cut along axis 0, as with ``torch.chunk``. If ``opt`` acts on whole leaves, as ``Muon``, ``LAMB`` and ``Adafactor``
    do, each leaf belongs to one worker, and the largest leaves are assigned first. Norms for clipping, the decisions of
    ``SkipNonFinite`` and ``LossScale``, and the sums of ``Prodigy`` cover all workers. Masks and the groups of ``by_path`` are
    chosen from whole leaves. The steps equal those of ``opt`` up to rounding.

    ``opt`` can be any chain, group or wrapper. Other optimizers can wrap the result, as in ``SAM(shard_optimizer(opt))`` and
    ``Averaged(shard_optimizer(opt), EMA())``: their own trees are whole, and they get whole gradients. Every worker must call
    ``eval_params``, which gathers averages.

    Args:
        opt: The optimizer.
        group: The process group; by default all processes. Gradients are sent in pieces if it is the group of ``data_parallel``.

    State:
        ``Pieces(tree, rows)``: ``tree`` is the state of ``opt`` for this worker's pieces, with ``None`` for leaves without a
            piece; ``rows`` are the marks of their rows. ``distributed.save`` writes it under the same names as a single process.

    Returns:
        The sharded optimizer.

    Raises:
        ValueError: If there is no process group; if ``opt`` is not an optimizer, is already donated, evaluates several gradients,
            or has a part that acts on all gradients together and has no rule for several workers; from ``update``, as for
            ``opt``, and if gradients do not match params, with the path.

    References:
        Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training trillion parameter models", sections 5.1 and 5.2.
    """
    workers_of("shard_optimizer", group)
    return ShardedOptimizer(opt, group)
