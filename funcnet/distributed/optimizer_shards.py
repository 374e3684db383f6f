"""Sharded optimizers: each worker has the state of its pieces of the params only, and makes their step.

    pᵣ, sᵣ ← the step of ``optimizer`` from pᵣ by gᵣ      pᵣ, gᵣ, sᵣ the pieces of worker r
    p ← the pieces of all workers                         gathered in one flat tensor for each dtype

``cutting`` says which rows a worker has, ``matrices`` how they are sent, and ``over_workers`` what is asked of all gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.codec import TreeCodec
from funcnet.contract import Params
from funcnet.distributed.cutting import Cut, cuts
from funcnet.distributed.leaf_scopes import as_meta, leaf_scopes, on_whole
from funcnet.distributed.matrices import Matrix
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.pieces import Piece, Pieces, mark, pieces_of, with_pieces
from funcnet.distributed.workers import Pending, Workers, gather_rows, workers_of
from funcnet.errors import add_location, describe, flag, value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.optim.base import Optimizer, State
from funcnet.optim.columns import GUARDS
from funcnet.optim.evaluating import EvaluatingOptimizer
from funcnet.paths import named_leaves
from funcnet.value import frozen, parts

__all__ = ["Piece", "Pieces", "ShardedOptimizer", "pieces_of", "shard_optimizer", "with_pieces"]


class Plan:
    """How the leaves of params of one structure lie on the workers, and the optimizer of this worker's pieces."""

    def __init__(self, optimizer: Optimizer, params: Params, workers: Workers) -> None:
        whole = as_meta(params)
        leaves = flatten_together(whole)[0]
        self.workers, self.whole, self.kinds = workers, whole, _kinds(leaves)
        self.cuts = cuts(leaves, leaf_scopes(optimizer, whole), workers.size)
        self.optimizer = over_workers(on_whole(optimizer, whole), workers)
        self.codec = TreeCodec(params)
        self._matrices: dict[tuple[int, ...], Matrix] = {}

    def is_of(self, params: Params, workers: Workers) -> bool:
        """Tell whether params have the structure, shapes and dtypes of this plan."""
        try:
            return self.workers == workers and _kinds(self.codec.read(params)) == self.kinds
        except LookupError:
            return False

    def pieces(self, values: Tree) -> Tree:
        """Return this worker's pieces of a tree like params, as views; ``None`` where it has none."""
        leaves = zip(self.cuts, flatten_together(self.whole, values)[1], strict=True)
        own = [None if cut is None or leaf is None else cut.piece(leaf, self.workers.rank) for cut, leaf in leaves]
        return unflatten(self.whole, iter(own))

    def marks(self, pieces: Tree, whole: Tree) -> Tree:
        """Return the marks of a tree of the state that is like params, from that of a single process."""
        rows = zip(self.cuts, *flatten_together(self.whole, pieces, whole)[1:], strict=True)
        return unflatten(self.whole, iter([self._mark(*row) for row in rows]))

    def _mark(self, cut: Cut | None, piece: Any, whole: Any) -> Tensor | None:
        return None if cut is None or whole is None else mark(cut.rows[self.workers.rank][0], whole.shape)

    def matrix(self, places: tuple[int, ...]) -> Matrix:
        """Return the matrix of the leaves at some places."""
        if places not in self._matrices:
            self._matrices[places] = Matrix([self.cuts[i] for i in places], self.workers.size)  # type: ignore[misc]
        return self._matrices[places]


def _kinds(leaves: Sequence[Any]) -> list[Any]:
    return [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else None for leaf in leaves]


class Plans:
    """The plans of the params that an optimizer met last; it pickles and copies empty."""

    __slots__ = ("known",)

    known: tuple[Plan, ...]

    def __init__(self) -> None:
        self.known = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Plans, ()

    def of(self, optimizer: Optimizer, params: Params, workers: Workers) -> Plan:
        """Return the plan for params. A known one of eight tensors takes 6 µs, a new one 0.5 ms."""
        for one in self.known:
            if one.is_of(params, workers):
                return one
        made = Plan(optimizer, params, workers)
        self.known = (made, *self.known[: GUARDS - 1])
        return made


def _can_be_sharded(value: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, Optimizer):
        raise value_error("shard_optimizer", "it must be an optimizer", describe(got))
    evaluating = [part for part in parts(got) if isinstance(part, EvaluatingOptimizer)]
    if evaluating:
        rule = (
            "an optimizer that asks for several gradients must be around it, SAM(shard_optimizer(opt)), and LBFGS has no pieces"
        )
        raise value_error("shard_optimizer", rule, repr(evaluating[0]))
    if any([getattr(part, "donated", False) for part in parts(got)]):  # noqa: C419
        raise value_error("shard_optimizer", "the optimizer must not be donated itself; donate the whole", repr(got))
    over_workers(got, Workers(None, 0, 2))  # refuses what has no rule for several workers


@frozen
class ShardedOptimizer(Optimizer):
    """An optimizer of which each worker has a part of the state; made by ``shard_optimizer``.

    Args:
        optimizer: The optimizer that steps the pieces.
        group: The process group.
        donated: Set by ``donate``: params and state may be overwritten.
        takes_pieces: Set by ``of_pieces``: gradients are this worker's pieces already.
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
        """Return how these params lie on the workers."""
        return self._plans.of(self._given, params, self.workers)

    def of_pieces(self) -> "ShardedOptimizer":
        """Return the optimizer of gradients that are this worker's pieces already, with no rows for a leaf without any here."""
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

    def update(self, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        plan, inner = self.plan(params), self._inner(state)
        gs = self._gradients(plan, grads, params)
        has_gradient = [g is not None for g in flatten_together(plan.whole, grads)[1]]
        try:
            new, after = plan.optimizer.update(gs, inner, plan.pieces(params))
        except Exception as error:
            add_location(error, f"shard_optimizer, rank {plan.workers.rank}")
            raise
        return self._gathered(plan, new, params, has_gradient), Pieces(after, state.rows)

    def _gradients(self, plan: Plan, grads: Tree, params: Params) -> Tree:
        """Return this worker's pieces of the gradients, of which a reducer may have made them already."""
        if self.takes_pieces:
            rows = zip(plan.cuts, flatten_together(plan.whole, grads)[1], strict=True)
            own = [g if g is not None and cut is not None and cut.rows[plan.workers.rank][1] else None for cut, g in rows]
            return unflatten(plan.whole, iter(own))
        for i, (cut, p, g) in enumerate(zip(plan.cuts, *flatten_together(params, grads), strict=True)):
            if g is not None and (cut is None or not isinstance(g, Tensor) or g.shape != p.shape):
                path, _ = [*named_leaves("", params)][i]
                rule = f"what params has, {describe(p)}" if cut else f"None, where params has {describe(p)}"
                raise value_error(self, f"grads must have at {path!r} {rule}", describe(g))
        return plan.pieces(grads)

    def _gathered(self, plan: Plan, pieces: Tree, params: Params, wanted: Sequence[bool]) -> Params:
        """Return the whole params from the pieces of all workers, in the places that are wanted; others stay as they are."""
        ps, own = flatten_together(params, pieces)
        groups: dict[Any, list[int]] = {}
        for i, cut in enumerate(plan.cuts):
            if cut is not None and wanted[i]:
                groups.setdefault((ps[i].dtype, ps[i].device), []).append(i)
        gathering = [self._started(plan, tuple(places), ps, own) for places in groups.values()]
        new = list(ps)
        for places, (matrix, sent) in zip(groups.values(), gathering, strict=True):
            for i, one in zip(places, self._found(matrix, sent, [ps[i] for i in places]), strict=True):
                new[i] = one
        return unflatten(params, iter(new))

    def _started(self, plan: Plan, places: tuple[int, ...], ps: list[Any], own: list[Any]) -> tuple[Matrix, Pending]:
        matrix = plan.matrix(places)
        row = matrix.of_pieces([own[i] for i in places], plan.workers.rank, ps[places[0]])
        return matrix, gather_rows(plan.workers, row)

    def _found(self, matrix: Matrix, sent: Pending, ps: list[Tensor]) -> Sequence[Tensor]:
        if not self.donated:
            return matrix.wholes(sent.wait())
        matrix.write(sent.wait(), ps)
        return ps

    def eval_params(self, state: State, params: Params) -> Params:
        """Return the params to evaluate; every worker must ask for them, since averages are gathered from all."""
        plan, inner = self.plan(params), self._inner(state)
        pieces = plan.pieces(params)
        found = plan.optimizer.eval_params(inner, pieces)
        if found is pieces:
            return params
        return self.replace(donated=False)._gathered(plan, found, params, [True] * len(plan.cuts))

    def rates(self, state: State) -> dict[str, Any]:
        return self.optimizer.rates(self._inner(state))

    def donate(self) -> "ShardedOptimizer":
        return self.replace(donated=True)

    def map_state(self, f: Callable[..., Tree], state: State, *others: State) -> State:
        """Return the state with ``f`` of each tree of pieces in it."""
        inner = [self._inner(one) for one in (state, *others)]
        return Pieces(self._given.map_state(f, *inner), state.rows)

    def require_fit(self, state: State, params: Params) -> None:
        plan = self.plan(params)
        plan.optimizer.require_fit(self._inner(state), plan.pieces(params))

    def _inner(self, state: State) -> State:
        if not isinstance(state, Pieces):
            raise value_error(self, "state must be that of this worker's pieces, as init makes it", describe(state))
        return state.tree

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.optimizer, self.group, self.donated, self.takes_pieces)

    def __repr__(self) -> str:
        return f"shard_optimizer({self.optimizer!r})"


def _made(optimizer: Optimizer, group: Any, donated: bool, takes_pieces: bool) -> ShardedOptimizer:
    return ShardedOptimizer(optimizer, group, donated=donated, takes_pieces=takes_pieces)


def shard_optimizer(opt: Optimizer, group: Any = None) -> ShardedOptimizer:
    """Divide the state of an optimizer among workers: each has that of its pieces of the params, and makes their step.

        pᵣ, sᵣ ← the step of ``opt`` from pᵣ by gᵣ      pᵣ, gᵣ, sᵣ the pieces of worker r
        p ← the pieces of all workers

        opt = distributed.shard_optimizer(fn.AdamW(1e-3))
        step = distributed.data_parallel(fn.train_step(net, loss, opt))
        state = opt.init(params)

    The state takes the memory of one process divided by the number of workers, and so does the time of the step. Params are whole
    on every worker. Under ``data_parallel`` each worker gets the sum of its pieces of the gradients only, in the same buckets and
    as early; the new params are gathered after the step, which is a second collective for each dtype. In a loop of your own, give
    ``update`` whole gradients that agree on all workers.

    Leaves are cut along axis 0 as ``torch.chunk`` cuts them. Where ``opt`` acts on whole leaves, as ``Muon``, ``LAMB`` and
    ``Adafactor`` do, a leaf belongs to one worker, and the largest leaves are dealt out first. Norms of clipping, the decisions
    of ``SkipNonFinite`` and ``LossScale`` and the sums of ``Prodigy`` are those of all workers. Masks and the groups of
    ``by_path`` are chosen by whole leaves. The steps are those of ``opt``, to rounding.

    ``opt`` may be any chain, group or wrapper. Other optimizers may be around it, as in ``SAM(shard_optimizer(opt))`` and
    ``Averaged(shard_optimizer(opt), EMA())``: their own trees are whole, and they get whole gradients. Every worker calls
    ``eval_params``, which gathers averages.

    Args:
        opt: The optimizer.
        group: The process group; by default all processes. Where it is that of ``data_parallel``, gradients are sent in pieces.

    State:
        ``Pieces(tree, rows)``: ``tree`` is the state of ``opt`` for this worker's pieces, with ``None`` for leaves of which it
        has nothing; ``rows`` says which rows these are. ``distributed.save`` writes it under the names of a single process.

    Raises:
        ValueError: Without a process group; for what is no optimizer, one that is donated already, one that asks for several
            gradients, and a part that acts on all gradients together and has no rule for several workers; from ``update`` as
            ``opt``, and for gradients that are not like params, with the path.

    References:
        Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training trillion parameter models", sections 5.1 and 5.2.
    """
    workers_of("shard_optimizer", group)
    return ShardedOptimizer(opt, group)
