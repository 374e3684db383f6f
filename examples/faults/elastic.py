r"""A training of several workers that continues from its last checkpoint after torchrun has restarted them.

TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --standalone --nproc-per-node=2 --max-restarts=3 \
    -m examples.faults.elastic --folder out/elastic

The order of the data depends on the key, the epoch and the position in it, but not on the number of workers; each worker takes
its rows of every batch. A checkpoint contains params, state and the number of steps, which determine everything else, so the
final params have the same bits whether workers were killed or not.

The variable makes torchrun create a new store for restarted workers. In the old one, gloo may find the address of a killed
worker, and a start is lost.
"""

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

import funcnet as fn
from funcnet import distributed

ROWS, BATCH, STEPS, EVERY, KEY = 60, 12, 20, 4, 7


def net_of(dropout: float) -> fn.Layer:
    """Return a small net; it is trained in float64."""
    return fn.serial(fn.Linear(6, 16), fn.Tanh(), fn.Dropout(dropout), fn.Linear(16, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of noise, and labels."""
    return fn.random.normal(1, (ROWS, 6), dtype=torch.float64), fn.random.randint(2, (ROWS,), 0, 3)


def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batch of a step, the same on all workers: the rows of an epoch in an order drawn from its key."""
    epoch, place = divmod(number, ROWS // BATCH)
    order = fn.random.permutation(fn.fold_in(KEY, epoch), ROWS)[place * BATCH : (place + 1) * BATCH]
    x, target = data()
    return x[order], target[order]


def train(folder: Path | str, dropout: float = 0.2, at: Callable[[int], object] = lambda number: None, steps: int = STEPS) -> str:
    """Train from the newest checkpoint on, and return a digest of the params; ``at`` gets the number of each step before it."""
    net, opt = net_of(dropout), fn.AdamW(lr=1e-2)
    step = distributed.data_parallel(fn.train_step(net, fn.CrossEntropy(), opt))
    checkpoints = distributed.Checkpoints(folder)
    params = fn.tree.cast(net.init(5), torch.float64)
    state, first = opt.init(params), 0
    if checkpoints.latest() is not None:
        params, state, first = checkpoints.load(like=(params, state, first))
    for number in range(first, steps):
        at(number)
        rows = distributed.shard_rows(batch(number))
        params, state, _ = step(params, state, *rows, fn.fold_in(KEY, number))
        if (number + 1) % EVERY == 0:
            checkpoints.save(number + 1, (params, state, number + 1))
    return digest(params)


def digest(params: fn.tree.Tree) -> str:
    """Return a hash of the bits of params."""
    return hashlib.sha256(b"".join(leaf.numpy().tobytes() for leaf in fn.tree.leaves(params))).hexdigest()


def killer(rank: int, number: int) -> Callable[[int], object]:
    """Return a function for ``at`` that kills a worker before a step, only in the first attempt of torchrun."""

    def at(now: int) -> None:
        if (dist.get_rank(), now, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == (rank, number, "0"):
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as a worker of torchrun; rank 0 prints the digest of the params, and how often the workers were restarted."""
    new = argparse.ArgumentParser(
        "examples.faults.elastic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--folder", type=Path, required=True, help="folder of the checkpoints")
    new.add_argument("--kill", type=int, nargs=2, metavar=("RANK", "STEP"), help="kill a worker before a step")
    options = new.parse_args(arguments)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = train(options.folder, at=killer(*options.kill) if options.kill else lambda number: None)
    if not dist.get_rank():
        print(f"restarts {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}, digest {found}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # after torch's checkpoints some processes abort in Python's shutdown, in a thread that releases a tensor
