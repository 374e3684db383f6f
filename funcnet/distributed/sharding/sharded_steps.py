"""Steps on divided params: each worker has its pieces of params, gradients and state, and updates its pieces.

params (DTensors) → pieces → forward and backward, whole params layer by layer → pieces of gradients → update of pieces → DTensors
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from funcnet import tree
from funcnet.contract import Cache, Grads, Layer, Params
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.replicas.buckets import plan
from funcnet.distributed.replicas.statistics import for_no_rows, moving_on_meta
from funcnet.distributed.replicas.whole_batch import WholeBatch
from funcnet.distributed.sharding.gathering import GatheringTurns, Groups
from funcnet.distributed.sharding.layouts import Layout
from funcnet.distributed.sharding.leaf_scopes import on_whole
from funcnet.distributed.sharding.optimizer_shards import ShardedOptimizer
from funcnet.distributed.sharding.param_shards import local_pieces, with_piece
from funcnet.distributed.sharding.scattering import ReduceScatter
from funcnet.distributed.workers import Pending, Workers
from funcnet.errors import value_error
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.gradients import ValueAndGrads
from funcnet.losses.loss import rows_of
from funcnet.optim.base import GradientTransform, Optimizer
from funcnet.optim.transforms.noise import AddNoise, AddPrivacyNoise
from funcnet.paths import named_leaves
from funcnet.places import Places
from funcnet.train import TrainStep
from funcnet.transforms.accumulation import Accumulated
from funcnet.value import parts


class Division:
    """The division of each leaf of params over the workers."""

    def __init__(self, params: Params, workers: Workers) -> None:
        leaves = flatten_together(params)[0]
        self.specs = [_spec(leaf) for leaf in leaves]
        self.floating = [leaf is not None and leaf.is_floating_point() for leaf in leaves]
        self.layouts = [_layout(*one, workers) for one in named_leaves("", params)]
        self.whole = tree.map(lambda leaf: torch.empty(leaf.shape, dtype=leaf.dtype, device="meta"), params)
        """The params on the meta device, undivided."""

    def fits(self, leaves: list[Any]) -> bool:
        """Return whether the leaves of other params are divided in the same way."""
        pairs = zip(self.specs, map(_spec, leaves), strict=True)
        return all([one is other or one == other for one, other in pairs])  # noqa: C419 (as elsewhere)

    def by_place(self, places: Places) -> list[list[int]]:
        """Return the numbers of the leaves of each place."""
        numbers = unflatten(self.whole, iter(range(len(self.specs))))
        return [flatten_together(entry)[0] for entry in places.entries(numbers)]


def _spec(leaf: Any) -> Any:
    return leaf._spec if isinstance(leaf, DTensor) else None


def _layout(path: str, leaf: Any, workers: Workers) -> Layout | None:
    """Return the layout of a leaf, or ``None`` if it is whole on each worker."""
    if not isinstance(leaf, DTensor):
        return None
    (where,) = leaf.placements
    if where.is_replicate():
        return None
    if not isinstance(where, Shard):
        rule = f"params must have the placements Shard or Replicate, and the leaf at {path!r} has another one"
        raise value_error("data_parallel", rule, f"{where!r}")
    return Layout(leaf.shape, where.dim, workers.size, workers.rank)


class ShardedBatch(WholeBatch):
    """The value and the gradient of the whole batch, for params and gradients that are divided in pieces."""

    turns: GatheringTurns

    def __init__(self, one: ValueAndGrads | Accumulated, workers: Workers, division: Division, *, averages: bool) -> None:
        super().__init__(one, workers, averages=averages)
        self._division, self._is_ready = division, False
        self._empty: GatheringTurns | None = None

    def scaled(self, params: Params, x: Any, target: Any, rng: Any, scale: Tensor | None) -> tuple[Tensor, Grads, Cache]:
        if not self._is_ready:
            self._prepare(x)
        self._params = params
        found = super().scaled(params, x, target, rng, scale)
        self._now.end()
        return found

    def _micro_batches(self, x: Any, target: Any) -> list[tuple[Any, Any]]:
        """Cut the shard into as many micro-batches as the other workers, which gather at the same time."""
        exactly = isinstance(self.one, Accumulated)
        return self.one.micro_batches(x, target, exactly=True) if exactly else [(x, target)]  # type: ignore[union-attr]

    def update_stats(self, params: Params, cache: Cache) -> Params:
        """Return the params with this worker's pieces of the statistics averaged by ``scaled``."""
        new, layouts = flatten_together(cache)[0], self._division.layouts
        for i in self._moving:
            layout = layouts[i]
            new[i] = new[i] if layout is None else layout.cut(new[i])
        made: Params = unflatten(params, iter(new))
        return made

    def _prepare(self, x: Any) -> None:
        """Choose the groups to gather; nets with running statistics need the shapes of x."""
        self._moving = moving_on_meta(self.net, self._division.whole, x) if self._averaging is not None else []
        if self._averaging is not None:
            self._averaging.learn(self._moving)
        self._groups = _groups(self.turns.places, self._division, self._moving)
        self.turns = self._turns_of(self.net)
        trainable = [[i for i in group if self.turns.places.layers[i].trainable] for group in self._groups.groups]
        self.reducer = ReduceScatter(self.workers, [group for group in trainable if group], self._groups.layouts)
        self._is_ready = True

    def _turns_of(self, net: Layer) -> GatheringTurns:
        return GatheringTurns(net, self.workers, self._groups)

    def _of_shard(self, x: Any) -> tuple[Layer, GatheringTurns]:
        if rows_of(x) or not self.net.batch_dependent:
            self._now = self.turns
        else:
            self._empty = self._empty or self._turns_of(for_no_rows(self.net))
            self._now = self._empty
        self._now.begin(self._params)
        return self._now.net, self._now

    def _started(self, net: Layer, params: Params, cache: Cache, x: Any) -> tuple[Params, Pending | None]:
        if self._averaging is not None:
            self._now.gather_statistics()
        return super()._started(net, params, cache, x)


def _groups(places: Places, division: Division, moved: list[int]) -> Groups:
    numbers = division.by_place(places)
    layouts = [[division.layouts[i] for i in own] for own in numbers]
    groups = plan(places.entries(division.whole))
    planned = {place for group in groups for place in group}
    others = [place for place, own in enumerate(layouts) if place not in planned and any(one is not None for one in own)]
    rows = {place: [k for k, i in enumerate(own) if i in moved] for place, own in enumerate(numbers)}
    return Groups([*groups, others] if others else groups, layouts, {place: row for place, row in rows.items() if row})


class ShardedStep:
    """A step from DTensors to DTensors of the new params and state."""

    def __init__(self, step: Any, workers: Workers) -> None:
        self.step, self.workers = step, workers
        if isinstance(step, TrainStep):
            _require_elementwise(step.opt)
        self._division: Division | None = None
        self._call: Callable[..., Any] = step

    def __call__(self, params: Params, *arguments: Any, **more: Any) -> Any:
        leaves = flatten_together(params)[0]
        if self._division is None or not self._division.fits(leaves):
            self._division = Division(params, self.workers)
            self._call = self._of(self._division)
        pieces = local_pieces(params)
        if not isinstance(self.step, TrainStep):
            value, grads, cache = self._call(pieces, *arguments, **more)
            return value, _like(params, grads), cache
        state, rest = (arguments[0], arguments[1:]) if arguments else (more.pop("state"), ())
        new, after, value = self._call(pieces, local_pieces(state), *rest, **more)
        return _like(params, new), _like(state, after), value

    def _of(self, division: Division) -> Callable[..., Any]:
        """Return the step for pieces."""
        step, workers = self.step, self.workers
        if workers.size == 1:
            return step  # type: ignore[no-any-return]
        if isinstance(step, TrainStep):
            stepping = TrainStep(
                step.net, step.loss, over_workers(on_whole(step.opt, division.whole), workers, self._counted(division))
            )
            return stepping.with_gradient(ShardedBatch(step.gradient, workers, division, averages=True))
        whole = ShardedBatch(step, workers, division, averages=False)
        return lambda params, x, target, rng=None: whole.scaled(params, x, target, rng, None)

    def _counted(self, division: Division) -> Tree:
        """Return the leaves that this worker counts in a norm; undivided leaves are counted by the first worker."""
        counts = [layout is not None or self.workers.rank == 0 for layout in division.layouts]
        if all(layout is not None for layout, one in zip(division.layouts, division.floating, strict=True) if one):
            return None
        return unflatten(division.whole, iter(counts))


def _like(trees: Tree, pieces: Tree) -> Tree:
    """Return the tree of DTensors with the given pieces, divided like those of another tree."""
    rows = zip(*flatten_together(trees, pieces), strict=True)
    return unflatten(trees, iter([None if piece is None else with_piece(leaf, piece) for leaf, piece in rows]))


def _require_elementwise(opt: Optimizer) -> None:
    """Reject an optimizer that needs whole leaves, since a worker has only pieces, or that divides its state itself."""
    if isinstance(opt, ShardedOptimizer):
        rule = "params divided by shard divide the optimizer's state too; remove shard_optimizer"
        raise value_error("data_parallel", rule, repr(opt))
    for part in parts(opt, given=True):
        if isinstance(part, (AddNoise, AddPrivacyNoise)):
            rule = "noise cannot be drawn for divided params: the pieces of all workers would get the same noise"
            raise value_error("data_parallel", rule, repr(part))
        if isinstance(part, (Optimizer, GradientTransform)) and part.acts_on == "leaves":
            rule = "divided params need an optimizer that acts on elements; shard_optimizer accepts those that act on leaves"
            raise value_error("data_parallel", rule, repr(part))


def require_mesh(params: Params, workers: Workers) -> None:
    """Reject DTensors that are not on a one-dimensional mesh of the same workers."""
    ranks = dist.get_process_group_ranks(workers.group or dist.group.WORLD)
    for path, leaf in tree.names(params).items():
        if isinstance(leaf, DTensor) and (leaf.device_mesh.ndim != 1 or leaf.device_mesh.mesh.tolist() != ranks):
            rule = f"DTensors must be divided over a mesh of the workers {ranks}; tensor_parallel accepts others"
            raise value_error("data_parallel", rule, f"{leaf.device_mesh} at {path!r}")
