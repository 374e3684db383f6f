"""What the examples share: how a worker meets the others, where it computes, and who prints."""

import os
import sys
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=5)
"""How long a worker waits for the others before it raises an error."""


@contextmanager
def workers():
    """Meet the workers that torchrun has started, or work without others; yields the device of this worker.

    They talk through gloo on CPUs and NCCL on GPUs, one GPU for each worker of a host. Only rank 0 prints.
    """
    on_gpus = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=TIMEOUT, **alone)
    with redirect_stdout(None if dist.get_rank() else sys.stdout):
        yield device
    dist.destroy_process_group()  # not after an error: the others may be gone, and the process ends anyway


def leave():
    """End the process at once: after torch's checkpoints some abort while Python ends, in a thread that lets go of a tensor.

    torchrun would take that for a failure, and start all workers again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
