"""Worker processes for measurements, in a gloo group on this machine, with one thread each.

A server that has imported torch and funcnet forks them, so a group starts in a fraction of a second.
"""

import functools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

IMPORTED = ("torch.distributed.fsdp", "torch.distributed.optim", "torch.distributed.pipelining", "funcnet")
TIMEOUT = timedelta(seconds=120)


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _work(folder: str, rank: int, size: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    import torch
    import torch.distributed as dist

    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        return work(*arguments)
    finally:
        dist.destroy_process_group()


def together(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function of a module in ``size`` new processes, and return the results by rank."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(size, mp_context=_context()) as pool:
        futures = [pool.submit(_work, folder, rank, size, work, arguments) for rank in range(size)]
        return [future.result() for future in futures]
