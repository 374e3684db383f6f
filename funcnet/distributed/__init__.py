"""Training in several processes, on ``torch.distributed`` and DTensor alone: every worker calls the same function.

    step = distributed.data_parallel(fn.train_step(net, loss, opt))
    params, state, value = step(params, state, *distributed.shard_rows((x, target)), rng)

The modules are imported when a name of theirs is first used, since DTensor takes 0.8 s to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnet.distributed.data_parallelism import DataParallel, data_parallel
    from funcnet.distributed.rows import shard_rows
    from funcnet.distributed.sync_norms import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d, sync_batch_norm

_HOMES = {
    "DataParallel": "data_parallelism",
    "data_parallel": "data_parallelism",
    "shard_rows": "rows",
    "SyncBatchNorm1d": "sync_norms",
    "SyncBatchNorm2d": "sync_norms",
    "SyncBatchNorm3d": "sync_norms",
    "sync_batch_norm": "sync_norms",
}

__all__ = [
    "DataParallel",
    "SyncBatchNorm1d",
    "SyncBatchNorm2d",
    "SyncBatchNorm3d",
    "data_parallel",
    "shard_rows",
    "sync_batch_norm",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
