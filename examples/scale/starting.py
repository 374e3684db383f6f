"""Helpers of the examples: join the other workers, choose a worker's device, and print on rank 0."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=5)
"""The time that a worker waits for the others before it raises an error."""


@contextmanager
def workers() -> Iterator[torch.device]:
    """Join the workers started by torchrun, or run as a single process; yield the device of this worker.

    They communicate through gloo on CPUs and NCCL on GPUs, with one GPU for each worker of a host. Only rank 0 prints.
    """
    on_gpus = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    store = dist.HashStore()  # type: ignore[attr-defined]
    alone: dict[str, Any] = {} if "RANK" in os.environ else {"store": store, "rank": 0, "world_size": 1}
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=TIMEOUT, **alone)
    with redirect_stdout(None if dist.get_rank() else sys.stdout):
        yield device
    dist.destroy_process_group()  # not after an error: the others may have ended, and the process ends anyway


def leave() -> None:
    """End the process at once.

    After torch's checkpoints some processes abort at Python's shutdown, in a thread that releases a tensor. torchrun would treat
    this as a failure and restart all workers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
