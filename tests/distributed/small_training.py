"""A small training for test workers: it prints the digest of params and state after each step, and can resume.

torchrun --nproc-per-node=2 tests/distributed/small_training.py FOLDER STEPS TIMEOUT
"""

import hashlib
import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

import funcnet as fn
from funcnet import distributed

NET = fn.serial(fn.Linear(6, 16), fn.BatchNorm1d(16), fn.ReLU(), fn.Dropout(0.1), fn.Linear(16, 3))
BATCH = 10


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batch of a step, the same on all workers."""
    x = fn.random.normal(fn.fold_in(1, step), (BATCH, 6))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def digest(tree: object) -> str:
    """Return a checksum of all bits of a tree."""
    seen = hashlib.sha256()
    for leaf in fn.tree.leaves(tree):
        seen.update(leaf.numpy().tobytes())
    return seen.hexdigest()


def train(tell: Callable[[int, str], object], steps: int, checkpoints: fn.Checkpoints | None = None) -> None:
    """Train from the newest checkpoint; rank 0 saves after each step."""
    opt = fn.AdamW(1e-2)
    step = distributed.data_parallel(fn.train_step(NET, fn.CrossEntropy(), opt))
    params = NET.init(0)
    state = opt.init(params)
    first = (checkpoints.latest() if checkpoints else None) or 0
    if first:
        params, state = checkpoints.load(first, like=(params, state))
    for i in range(first, steps):
        params, state, _ = step(params, state, *distributed.shard_rows(batch(i)), fn.fold_in(2, i))
        if checkpoints and dist.get_rank() == 0:
            checkpoints.save(i + 1, (params, state))
        tell(i + 1, digest((params, state)))


def digests(steps: int) -> list[str]:
    """Return the digests of a training by step."""
    told: list[str] = []
    train(lambda step, found: told.append(found), steps)
    return told


def main(folder: str, steps: str, timeout: str) -> None:
    """Train in a process started by torchrun, and print a line for each step.

    The timeout holds from the second step on: before that, workers may be far apart, since they import modules.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    limit = timedelta(seconds=float(timeout))

    def tell(step: int, found: str) -> None:
        print("step", step, found, flush=True)
        dist.distributed_c10d._get_default_store().set_timeout(limit)
        dist.distributed_c10d._set_pg_timeout(limit)

    train(tell, int(steps), fn.Checkpoints(folder))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # after torch's checkpoints some processes abort during Python's shutdown, in a thread that releases a tensor
