"""Data parallelism: every worker makes the same pure step with its shard of the batch.

    value = Σ sᵣ valueᵣ      grads = Σ sᵣ gradsᵣ      over the workers r; sᵣ is the share of shard r in the batch

Gradients are sent during the backward pass: ``turns`` reports finished layers, and ``buckets`` groups their gradients.
"""

from collections.abc import Callable
from typing import Any

from attrs import field
from torch import Tensor

from funcnet import tree
from funcnet.contract import Params
from funcnet.distributed.agreement import require_agreement
from funcnet.distributed.failures import explaining_failures
from funcnet.distributed.repeating import Repeats, repeats_of
from funcnet.distributed.replicas.whole_batch import WholeBatch
from funcnet.distributed.sharding.optimizer_shards import ShardedOptimizer
from funcnet.distributed.sharding.sharding_batch import ShardingBatch
from funcnet.distributed.workers import Workers, workers_of
from funcnet.errors import instances, value_error
from funcnet.gradients import ValueAndGrads
from funcnet.train import TrainStep
from funcnet.transforms.accumulation import Accumulated
from funcnet.value import Value, frozen

Step = TrainStep | ValueAndGrads | Accumulated

_steps = instances((TrainStep, ValueAndGrads, Accumulated), "a result of train_step, value_and_grads or accumulate")


@frozen
class DataParallel(Value):
    """A step that every worker makes with its shard of the batch; created with ``data_parallel``.

        value = Σ sᵣ valueᵣ      grads = Σ sᵣ gradsᵣ      over the workers r

    Args:
        step: The step of a single process.
        group: The process group; by default all processes.
    """

    label = "data_parallel"

    step: Step = field(validator=_steps)
    group: Any = field(default=None, repr=False)
    _workers: Workers = field(init=False, eq=False)
    _call: Callable[..., Any] = field(init=False, eq=False)
    _repeats: Repeats = field(init=False, eq=False)
    _agreed: list[bool] = field(init=False, eq=False, factory=list)
    _divided: list[Callable[..., Any]] = field(init=False, eq=False, factory=list)

    def __attrs_post_init__(self) -> None:
        if getattr(self.step, "in_backward", False):
            rule = "in_backward=True updates layers before the gradients of other workers arrive; remove it"
            raise value_error("data_parallel", rule, repr(self.step))
        workers = workers_of("data_parallel", self.group)
        object.__setattr__(self, "_workers", workers)
        object.__setattr__(self, "_repeats", repeats_of(workers, "data_parallel"))
        object.__setattr__(self, "_call", self.step if workers.size == 1 else _on(workers, self.step))

    def __call__(self, params: Params, *arguments: Any, **more: Any) -> Any:
        with explaining_failures(self._workers, "data_parallel"), self._repeats:
            if not self._agreed and self._workers.size > 1:
                self._require_agreement(params, *arguments, **more)
            return self._call_for(params)(params, *arguments, **more)

    def _require_agreement(self, params: Params, state: Any = None, *_: Any, **more: Any) -> None:
        """Compare params and the optimizer's state between workers at the first call."""
        state = state if isinstance(self.step, TrainStep) else None
        require_agreement(self._workers, "data_parallel", params=params, state=state)
        self._agreed.append(True)

    def _call_for(self, params: Params) -> Callable[..., Any]:
        """Return the step for params that are plain tensors, or DTensors on a mesh of the same workers."""
        if not _has_dtensors(params):
            return self._call
        from funcnet.distributed.sharding.sharded_steps import ShardedStep, require_mesh  # imports DTensor, which takes 0.8 s

        require_mesh(params, self._workers)
        if not self._divided:
            self._divided.append(ShardedStep(self.step, self._workers))
        return self._divided[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return data_parallel, (self.step, self.group)

    def __repr__(self) -> str:
        return f"data_parallel({self.step!r})"


def _has_dtensors(params: Params) -> bool:
    return any([type(leaf) is not Tensor and hasattr(leaf, "device_mesh") for leaf in tree.leaves(params)])  # noqa: C419


def _on(workers: Workers, step: Step) -> Callable[..., Any]:
    """Return the step for several workers."""
    if isinstance(step, TrainStep) and isinstance(step.opt, ShardedOptimizer) and step.opt.workers == workers:
        return step.replace(opt=step.opt.of_pieces()).with_gradient(ShardingBatch(step.gradient, workers, step.opt))
    if isinstance(step, TrainStep):
        return step.with_gradient(WholeBatch(step.gradient, workers, averages=True))
    whole = WholeBatch(step, workers, averages=False)
    return lambda params, x, target, rng=None: whole.scaled(params, x, target, rng, None)


def data_parallel(step: Step, group: Any = None) -> DataParallel:
    """Return a step that every worker calls with the same params and its own shard of the batch.

        value = Σ sᵣ valueᵣ      grads = Σ sᵣ gradsᵣ      sᵣ = wᵣ / Σ wᵣ      wᵣ = loss.weight_of(targetᵣ)

    The sums are over the workers r. The value and the new params are those of the whole batch, with the same bits on every
    worker, however the rows are distributed: shards can be empty, and labels can be ignored. With one worker the result is that
    of ``step`` itself.

    Gradients are sent in at most eight flat buckets, each as soon as the backward pass has computed the gradients of its layers.
    With several micro-batches (``accumulate``), gradients are summed locally and sent during the last one. Half precision is
    summed in float32.

    Workers have different noise: for stochastic nets, the key of worker r is ``fold_in(rng, r)``. Running statistics are computed
    from each shard and averaged over workers, weighted by the number of rows; use ``sync_batch_norm`` to normalize with the
    statistics of all shards. A ``batch_dependent`` loss, such as ``InfoNCE``, compares only rows of the same shard.

    At the first call the workers compare params and state, which must have the same bits everywhere.

    After an error, a step can be repeated if all workers had an error between the same collectives, as with a batch of the wrong
    shape on all of them. If only some workers had one, the others raise ``WorkerError``, and so does the next step on every
    worker.

    Params can be DTensors returned by ``shard``. A worker then holds only its pieces of params, gradients and state. It gathers
    whole params for a few layers at a time, in the forward pass and again in the backward pass, while earlier layers compute. The
    step returns DTensors.

    Args:
        step: The result of ``train_step``, ``value_and_grads`` or ``accumulate``. The last two return the cache of this worker's
            shard.
        group: The process group; by default all processes.

    Returns:
        A function with the arguments and results of ``step``.

    Raises:
        ValueError: If ``step`` is anything else or has ``in_backward``, or there is no process group; at the first call, on every
            worker, if params or state differ between workers, with the path; if the mesh of DTensors does not match the group, or
            the optimizer needs whole leaves.
    """
    return DataParallel(step, group)
