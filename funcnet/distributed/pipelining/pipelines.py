"""Pipelines: a training step whose net is cut into stages, one for each worker."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.distributed.failures import explaining_failures
from funcnet.distributed.over_workers import over_workers
from funcnet.distributed.pipelining.cutting import CutNet, merged
from funcnet.distributed.pipelining.messages import Leaf
from funcnet.distributed.pipelining.running import DiffersError, StageGradient
from funcnet.distributed.pipelining.schedules import Timed, require_schedule
from funcnet.distributed.replicas.sync_norms import require_apart
from funcnet.distributed.workers import Workers, broadcast_from, gather_objects, gather_rows, workers_of
from funcnet.errors import as_tuple, instances, value_error, whole
from funcnet.flattening import Tree, flatten_together, unflatten
from funcnet.gradients import value_and_grads
from funcnet.random.keys import Key
from funcnet.saving.tensors import checksum
from funcnet.train import TrainStep
from funcnet.transforms.accumulation import Accumulated
from funcnet.value import Value, frozen


class Inside:
    """The objects that a worker needs for its stage, created at the first call."""

    def __init__(self, of: "Pipeline") -> None:
        self.workers = _workers_for(of)
        self.gradient = StageGradient("pipeline", of.cut, _accumulated(of), of.schedule, self.workers)
        self.step: TrainStep | None = None

    def step_for(self, of: "Pipeline", params: Params) -> TrainStep:
        """Return the step of this worker's stage; its optimizer communicates with all stages if it needs all gradients."""
        if self.step is None:
            opt, rank = of.step.opt, self.workers.rank
            if self.workers.size > 1:
                opt = over_workers(opt, self.workers, self._counted(of.cut, params) if of.cut.shared else None)
            self.step = of.step.replace(opt=opt, accumulate=1).with_gradient(self.gradient)
            self._require_agreement(of, of.cut.part(params, rank))
        return self.step

    def _counted(self, cut: CutNet, params: Params) -> Tree:
        """Return True for each leaf that this stage counts; a shared leaf counts in the stage of its layer."""
        part, own = cut.part(params, self.workers.rank), cut.entries_of(params, self.workers.rank)
        rows = zip(*flatten_together(part, own), strict=True)
        return unflatten(part, iter([one is not None for _, one in rows]))

    def _require_agreement(self, of: "Pipeline", part: Params) -> None:
        """Raise on every worker if the workers' pipelines differ, or the bits of shared params do."""
        shared = {path: _bits(tree.at(part, path)) for path, stages in of.cut.shared.items() if self.workers.rank in stages}
        gathered = gather_objects(self.workers, (repr(of), shared))
        for rank, (other, bits) in enumerate(gathered):
            if other != gathered[0][0]:
                raise value_error("pipeline", "all workers must make the same pipeline", f"{other} on rank {rank}")
            for path in bits.keys() & shared.keys():
                if bits[path] != shared[path]:
                    rule = f"params shared by several stages must be the same on their workers, and params at {path!r} differ"
                    raise value_error("pipeline", rule, f"different values on rank {rank} than on rank {self.workers.rank}")

    def compare_batches(self, x: Any, target: Any, rng: Any) -> Callable[[], None]:
        """Start comparing the workers' batches and keys; the returned function raises on all workers if they differ."""
        leaves = [leaf for leaf in tree.leaves((x, target)) if isinstance(leaf, Tensor)]
        key = int(rng) if isinstance(rng, int) or (isinstance(rng, Tensor) and rng.is_cpu and rng.dim() == 0) else None
        own = tuple([(tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves]), key
        number = torch.tensor([zlib.crc32(repr(own).encode())], device=leaves[0].device if leaves else None)
        pending = gather_rows(self.workers, number)
        return lambda: self._require_same(pending.wait().flatten().tolist(), own)

    def _require_same(self, numbers: list[int], own: Any) -> None:
        for rank, other in enumerate(gather_objects(self.workers, own) if len({*numbers}) > 1 else ()):
            if other != own:
                rule = "x, target and rng must be the same on all workers, and here their shapes, dtypes and key are"
                raise DiffersError(str(value_error("pipeline", f"{rule} {own}", f"{other} on rank {rank}")))


def _bits(values: Tree) -> list[int]:
    return [checksum(leaf.detach().cpu().contiguous()) for leaf in tree.leaves(values)]


def _accumulated(of: "Pipeline") -> Accumulated:
    return Accumulated(value_and_grads(of.step.net, of.step.loss), of.microbatches)


def _workers_for(of: "Pipeline") -> Workers:
    workers = workers_of("pipeline", of.group)
    if workers.size != of.cut.size:
        rule = f"there must be a worker for each of the {of.cut.size} stages of {len(of.cuts)} cuts"
        raise value_error("pipeline", rule, f"{workers.size} workers")
    require_apart("pipeline", of.step.net, workers)
    return workers


def _cuts(got: Any) -> Any:
    return (got,) if isinstance(got, str) else as_tuple(got)


@frozen
class Pipeline(Value):
    """A step whose net is cut into stages, one for each worker; created with ``pipeline``.

        y = f_p(...f_1(x))      f_r the layers of worker r - 1

    Args:
        step: The step of a single process.
        cuts: The layers at which a new stage begins, by number or name.
        schedule: The order of the work: ``"gpipe"``, ``"1f1b"`` or ``"zero_bubble"``.
        microbatches: Number of micro-batches.
        group: The process group; by default all processes.
    """

    label = "pipeline"

    step: TrainStep = field(validator=instances(TrainStep, "a step of train_step"))
    cuts: tuple[int | str, ...] = field(
        converter=_cuts, validator=instances((int, str), "layers by number or name", several=True)
    )
    schedule: str = "1f1b"
    microbatches: int = field(default=4, validator=whole(1))
    group: Any = field(default=None, repr=False)
    cut: CutNet = field(init=False, eq=False)
    _made: list[Inside] = field(init=False, eq=False, factory=list)

    def __attrs_post_init__(self) -> None:
        require_schedule("pipeline", self.schedule)
        if self.step.in_backward or self.step.accumulate not in (1, self.microbatches):
            rule = "the step must have in_backward=False and accumulate=1; microbatches is the number of parts of a batch"
            raise value_error("pipeline", rule, repr(self.step))
        object.__setattr__(self, "cut", CutNet("pipeline", self.step.net, self.cuts))
        if dist.is_available() and dist.is_initialized():
            _workers_for(self)

    def _inside(self) -> Inside:
        if not self._made:
            self._made.append(Inside(self))
        return self._made[0]

    def __call__(
        self, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None = None
    ) -> tuple[Params, Tree, Tensor]:
        inside = self._inside()
        opt, rank = self.step.opt, inside.workers.rank
        with explaining_failures(inside.workers, "pipeline"):
            step = inside.step_for(self, params)
            part = self.cut.part(params, rank)
            own = opt.map_state(lambda one: self.cut.part(one, rank), state)
            if inside.workers.size > 1:
                inside.gradient.meet = inside.compare_batches(x, target, rng)
            new, after, value = step(part, own, x, target, rng)
        return merged(new, params), opt.map_state(merged, after, state), value

    def traced(
        self, params: Params, state: Tree, x: Any, target: Any, rng: Key | int | None = None
    ) -> tuple[tuple[Params, Tree, Tensor], list[Timed]]:
        """Make a step; return its result, and this worker's actions with their start and end times in seconds.

        The clock is ``time.perf_counter``, which the processes of one machine share. An action starts when its message has
        arrived.

        Args:
            params: The params, as for the step.
            state: The optimizer's state.
            x: The batch.
            target: Its targets.
            rng: A key or an int seed for a stochastic net.
        """
        gradient = self._inside().gradient
        trace = gradient.trace = []
        try:
            return self(params, state, x, target, rng), trace
        finally:
            gradient.trace = None

    def part(self, values: Tree) -> Tree:
        """Return the part of a tree like params that this worker's stage holds, with ``None`` at all other leaves.

        The step accepts it instead of whole params, and so does ``opt.init``, whose state then needs a fraction of the memory.

        Args:
            values: A tree like params.
        """
        return self.cut.part(values, self._inside().workers.rank)

    def whole(self, params: Params) -> Params:
        """Gather the entries of every stage from its worker, and return whole params on every worker, to save or evaluate.

        All workers call it together.

        Args:
            params: The params that the step returned on this worker.
        """
        workers = self._inside().workers
        own = flatten_together(self.cut.entries_of(params, workers.rank))[0]
        forms = gather_objects(workers, [None if leaf is None else Leaf(tuple(leaf.shape), leaf.dtype) for leaf in own])
        columns = [own if rank == workers.rank else _buffers(row, params) for rank, row in enumerate(forms)]
        rows = [(rank, leaf) for rank, column in enumerate(columns) for leaf in column if leaf is not None and leaf.numel()]
        for pending in [broadcast_from(workers, leaf.contiguous(), rank) for rank, leaf in rows]:
            pending.wait()
        leaves = [next((leaf for leaf in row if leaf is not None), None) for row in zip(*columns, strict=True)]
        made: Params = unflatten(params, iter(leaves))
        return made

    def whole_state(self, state: Tree) -> Tree:
        """Gather every stage's part of the optimizer's state, and return the whole state on every worker.

        All workers call it together.

        Args:
            state: The state that the step returned on this worker.
        """
        return self.step.opt.map_state(self.whole, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return pipeline, (self.step, self.cuts, self.schedule, self.microbatches, self.group)

    def __repr__(self) -> str:
        return f"pipeline({self.step!r}, {self.cuts!r}, schedule={self.schedule!r}, microbatches={self.microbatches})"


def _buffers(forms: list[Leaf | None], params: Params) -> list[Tensor | None]:
    """Return empty tensors for the leaves of another worker, on the device of this worker's params."""
    device = next((leaf.device for leaf in tree.leaves(params)), torch.device("cpu"))
    return [None if one is None else torch.empty(one.shape, dtype=one.dtype, device=device) for one in forms]


def pipeline(
    step: TrainStep, cuts: Sequence[int | str], schedule: str = "1f1b", microbatches: int = 4, group: Any = None
) -> Pipeline:
    """Cut the serial net of a step into stages, one for each worker, which work on several micro-batches at a time.

        y  = f_p(...f_1(x))      f_r the layers of worker r - 1; y goes to the next worker, and gy to the one before
        value, params, state     those of ``train_step(net, loss, opt, accumulate=microbatches)``, up to rounding

    All workers call the step with the same ``(params, state, x, target, rng=None)`` and get ``(params, state, value)``.
    ``params`` are those of the whole net. A worker computes and updates the params of its stage, and returns the others
    unchanged; the same holds for the state. The methods ``whole(params)`` and ``whole_state(state)`` gather all stages, to save
    and to evaluate; ``part(params)`` is all that a worker needs. Only the first worker reads the values of x, and only the last
    one those of target.

    Micro-batches are cut, weighted and keyed as in ``accumulate``; running statistics are those of the last one. The net may be
    within ``tied`` and ``cast``. Params tied across stages are updated equally in all of them, with the sum of their gradients.
    Optimizers that need all gradients at once, such as ``ClipByGlobalNorm``, cover all stages.

    Args:
        step: The result of ``train_step`` for a ``serial``, without ``in_backward``.
        cuts: The layers at which a new stage begins, by number or name: one fewer than workers.
        schedule: The order of the work. ``"gpipe"``: all forward passes first, so all micro-batches are in memory. ``"1f1b"``:
            forward and backward passes alternate, with at most as many micro-batches in memory as there are stages.
            ``"zero_bubble"``: the backward pass is also split in halves, and the second half fills the waits. ``timeline`` draws
            the schedules.
        microbatches: Number of micro-batches; a batch with fewer rows is cut into fewer. The ``bubble`` is small if the number is
            several times the number of stages.
        group: The process group; by default all processes. Its rank r computes stage r.

    Returns:
        The step, a ``Pipeline``.

    Raises:
        ValueError: If the net is not a serial, cuts are out of range or out of order, the number of workers differs from the
            number of stages, ``schedule`` is unknown, ``microbatches`` is below 1, or the optimizer needs all gradients and has
            no rule for several workers, such as ``LBFGS``; at the first call, on every worker, if the pipelines or the shared
            params differ.
        WorkerError: From a step, if another worker fails; that worker raises its own error.

    References:
        Huang et al. 2019, "GPipe"; Narayanan et al. 2021, "Efficient large-scale language model training on GPU clusters" (1F1B);
        Qi et al. 2023, "Zero bubble pipeline parallelism" (ZB-H1).

    >>> from funcnet.combinators.sequential import serial
    >>> from funcnet.layers.activation.sigmoids import Tanh
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.losses.regression import MSE
    >>> from funcnet.optim.sgd import SGD
    >>> from funcnet.train import train_step
    >>> step = train_step(serial(Linear(4, 8), Tanh(), Linear(8, 1)), MSE(), SGD(0.1))
    >>> pipeline(step, cuts=[2], microbatches=8).cuts
    (2,)
    """
    return Pipeline(step, cuts, schedule, microbatches, group)  # type: ignore[arg-type]  # a list becomes a tuple
