"""Training in several processes with ``torch.distributed`` and DTensor: every worker calls the same function.

    step = distributed.data_parallel(fn.train_step(net, loss, opt))
    params, state, value = step(params, state, *distributed.shard_rows((x, target)), rng)

The modules are imported when one of their names is first used, because importing DTensor takes 0.8 s.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnet.distributed.checkpointing.checkpoints import load, load_metadata, save
    from funcnet.distributed.checkpointing.kept_checkpoints import Checkpoints
    from funcnet.distributed.data_parallelism import DataParallel, data_parallel
    from funcnet.distributed.failures import WorkerError
    from funcnet.distributed.parting.tensor_parallelism import TensorParallel, tensor_parallel
    from funcnet.distributed.parting.tensor_plans import tensor_parallel_plan
    from funcnet.distributed.pipelining.pipelines import Pipeline, pipeline
    from funcnet.distributed.pipelining.schedules import bubble, timeline
    from funcnet.distributed.replicas.sync_batch_norms import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d, sync_batch_norm
    from funcnet.distributed.rows import shard_rows
    from funcnet.distributed.sharding.optimizer_shards import ShardedOptimizer, shard_optimizer
    from funcnet.distributed.sharding.param_shards import shard, unshard
    from funcnet.distributed.sums import all_reduce

_HOMES = {
    "Checkpoints": "checkpointing.kept_checkpoints",
    "DataParallel": "data_parallelism",
    "Pipeline": "pipelining.pipelines",
    "ShardedOptimizer": "sharding.optimizer_shards",
    "SyncBatchNorm1d": "replicas.sync_batch_norms",
    "SyncBatchNorm2d": "replicas.sync_batch_norms",
    "SyncBatchNorm3d": "replicas.sync_batch_norms",
    "TensorParallel": "parting.tensor_parallelism",
    "WorkerError": "failures",
    "all_reduce": "sums",
    "bubble": "pipelining.schedules",
    "data_parallel": "data_parallelism",
    "load": "checkpointing.checkpoints",
    "load_metadata": "checkpointing.checkpoints",
    "pipeline": "pipelining.pipelines",
    "save": "checkpointing.checkpoints",
    "shard": "sharding.param_shards",
    "shard_optimizer": "sharding.optimizer_shards",
    "shard_rows": "rows",
    "sync_batch_norm": "replicas.sync_batch_norms",
    "tensor_parallel": "parting.tensor_parallelism",
    "tensor_parallel_plan": "parting.tensor_plans",
    "timeline": "pipelining.schedules",
    "unshard": "sharding.param_shards",
}

__all__ = [
    "Checkpoints",
    "DataParallel",
    "Pipeline",
    "ShardedOptimizer",
    "SyncBatchNorm1d",
    "SyncBatchNorm2d",
    "SyncBatchNorm3d",
    "TensorParallel",
    "WorkerError",
    "all_reduce",
    "bubble",
    "data_parallel",
    "load",
    "load_metadata",
    "pipeline",
    "save",
    "shard",
    "shard_optimizer",
    "shard_rows",
    "sync_batch_norm",
    "tensor_parallel",
    "tensor_parallel_plan",
    "timeline",
    "unshard",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
