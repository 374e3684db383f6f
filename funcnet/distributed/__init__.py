"""Training in several processes, on ``torch.distributed`` and DTensor alone: every worker calls the same function.

    step = distributed.data_parallel(fn.train_step(net, loss, opt))
    params, state, value = step(params, state, *distributed.shard_rows((x, target)), rng)

The modules are imported when a name of theirs is first used, since DTensor takes 0.8 s to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnet.distributed.checkpoints import load, load_metadata, save
    from funcnet.distributed.data_parallelism import DataParallel, data_parallel
    from funcnet.distributed.failures import WorkerError
    from funcnet.distributed.kept_checkpoints import Checkpoints
    from funcnet.distributed.optimizer_shards import ShardedOptimizer, shard_optimizer
    from funcnet.distributed.param_shards import shard, unshard
    from funcnet.distributed.pipelining.pipelines import Pipeline, pipeline
    from funcnet.distributed.pipelining.schedules import bubble, timeline
    from funcnet.distributed.rows import shard_rows
    from funcnet.distributed.sync_norms import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d, sync_batch_norm
    from funcnet.distributed.tensor_parallelism import TensorParallel, tensor_parallel
    from funcnet.distributed.tensor_plans import tensor_parallel_plan

_HOMES = {
    "Checkpoints": "kept_checkpoints",
    "DataParallel": "data_parallelism",
    "Pipeline": "pipelining.pipelines",
    "ShardedOptimizer": "optimizer_shards",
    "SyncBatchNorm1d": "sync_norms",
    "SyncBatchNorm2d": "sync_norms",
    "SyncBatchNorm3d": "sync_norms",
    "TensorParallel": "tensor_parallelism",
    "WorkerError": "failures",
    "bubble": "pipelining.schedules",
    "data_parallel": "data_parallelism",
    "load": "checkpoints",
    "load_metadata": "checkpoints",
    "pipeline": "pipelining.pipelines",
    "save": "checkpoints",
    "shard": "param_shards",
    "shard_optimizer": "optimizer_shards",
    "shard_rows": "rows",
    "sync_batch_norm": "sync_norms",
    "tensor_parallel": "tensor_parallelism",
    "tensor_parallel_plan": "tensor_plans",
    "timeline": "pipelining.schedules",
    "unshard": "param_shards",
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
