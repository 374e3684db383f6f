"""Characters on several workers: the transformer of ``examples.characters``, trained data-parallel.

Every worker draws the same batch from the key and the number of the step, and takes its rows. The batches do not depend on the
number of workers. The training is saved every 20 steps. After a restart it continues from the last checkpoint, even with another
number of workers.

    torchrun --nproc-per-node=2 examples/scale/characters.py --steps 800 --out out
    torchrun --nproc-per-node=2 examples/scale/characters.py --shard optimizer
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nproc-per-node=2 --max-restarts=3 examples/scale/characters.py
    python -m examples.scale.characters

The variable makes torchrun create a new store for restarted workers.
"""

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

if not __package__:  # torchrun and python add the folder of the script to the path
    sys.path[0] = str(Path(__file__).parents[2])

import funcnet as fn
from examples import characters, common
from examples.scale import starting
from funcnet import distributed
from funcnet.contract import Params
from funcnet.random.keys import Key

EVERY = 20
"""Steps between checkpoints."""

SHARD = ("none", "optimizer", "params")


def rows(train: Tensor, rng: Key, step: int, count: int, device: torch.device) -> common.Batch:
    """Return this worker's rows of the batch of a step."""
    x, target = characters.pieces(train, fn.fold_in(rng, step), count)
    x, target = distributed.shard_rows((x, target.view_as(x)))
    return x.to(device), target.flatten().to(device)


def start(options: Namespace, device: torch.device, rng: Key) -> tuple[Any, Params, Any]:
    """Return the step, the params and the optimizer's state, divided over the workers according to ``--shard``."""
    opt, params = characters.optimizer(options.steps), fn.tree.to(characters.net.init(rng), device)
    if options.shard == "optimizer":
        opt = distributed.shard_optimizer(opt)
    if options.shard == "params":
        params = distributed.shard(params, init_device_mesh(device.type, (dist.get_world_size(),)))
    step = distributed.data_parallel(fn.train_step(characters.net, characters.loss, opt))
    return step, params, opt.init(params)


def trained(options: Namespace, train: Tensor, rng: Key, checkpoints: distributed.Checkpoints, device: torch.device) -> Params:
    """Train from the newest checkpoint on, and return the whole params."""
    first, drawn = fn.split(rng)
    step, params, state = start(options, device, first)
    done = 0
    if checkpoints.latest():
        done, params, state = checkpoints.load(like=(done, params, state))
        print(f"continuing after step {done} of {checkpoints.folder}; --fresh starts again")
    for i in range(done + 1, options.steps + 1):
        params, state, value = step(params, state, *rows(train, drawn, i, options.batch, device))
        if i % EVERY == 0:
            checkpoints.save(i, (i, params, state))
        if i % max(1, options.steps // 10) == 0:
            print(f"step {i:5}  training loss  {float(value):.3f}", flush=True)
    whole: Params = distributed.unshard(params)
    return whole


def held_out(params: Params, test: Tensor, device: torch.device) -> float:
    """Return the loss on the held-out text: each worker evaluates some of the batches, and the sums are added up."""
    metric = fn.Average(characters.loss)
    total = metric.start()
    with torch.inference_mode():
        for x, target in characters.in_order(test)[dist.get_rank() :: dist.get_world_size()]:
            total = metric.add(total, characters.net(params, x.to(device)), target.to(device))
    return float(metric.value(distributed.all_reduce(total)))


def report(options: Namespace, params: Params, train: Tensor, test: Tensor, value: float, rng: Key) -> None:
    """Print the losses, and write a sample."""
    print(f"workers                {dist.get_world_size()}")
    print(f"parameters             {fn.tree.size(params)}")
    counted = zip(("unigram", "bigram"), characters.by_counting(train, test), strict=True)
    for name, found in (("transformer", value), *counted):
        print(f"{name:12} held out  {found:.3f} nats per character")
    words = characters.sample(fn.tree.to(params, "cpu"), options.sample, rng)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "scale-characters.txt"
    path.write_text(words + "\n")
    print(f"\n{words}\n\nsample: {path}")


def main(given: list[str] | None = None) -> None:
    """Train, and print and write on rank 0."""
    others = {"sample": (600, "number of characters to write"), "shard": (SHARD, "trees that are divided over the workers")}
    batch = (characters.BATCH, "number of pieces per step, over all workers")
    options = common.arguments(__doc__, given, others, threads=None, steps=800, batch=batch)
    train, test = characters.split_text()
    train_key, sample_key = fn.split(fn.key(options.seed))
    with starting.workers() as device:
        folder = options.out / "checkpoints" / f"scale-characters-{options.training}"
        is_first = dist.get_rank() == 0
        if options.fresh and is_first:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        params = trained(options, train, train_key, distributed.Checkpoints(folder), device)
        value = held_out(params, test, device)
        if is_first:
            report(options, params, train, test, value, sample_key)
        dist.barrier()  # until all workers are here, a restarted one can still need the checkpoints
        if is_first:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
    starting.leave()
