"""A pipeline: a residual net on scikit-learn's digits, whose layers are divided over the workers.

Each worker computes and updates its own layers. Several micro-batches are in flight at a time. ``timeline`` draws the actions of
the workers over time, and ``bubble`` computes the fraction of time spent waiting.

    torchrun --nproc-per-node=2 examples/scale/pipeline.py --schedule zero_bubble
    python -m examples.scale.pipeline
"""

import sys
from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist

if not __package__:  # torchrun and python add the folder of the script to the path
    sys.path[0] = str(Path(__file__).parents[2])

import funcnet as fn
from examples import common
from examples.scale import starting
from funcnet import distributed
from funcnet.contract import Params
from funcnet.random.keys import Key

WIDTH, BLOCKS, BATCH = 64, 6, 128

block = fn.residual(fn.serial(fn.LayerNorm(WIDTH), fn.Linear(WIDTH, 2 * WIDTH), fn.GELU(), fn.Linear(2 * WIDTH, WIDTH)))
net = fn.serial(fn.Flatten(), *[block] * BLOCKS, fn.LayerNorm(WIDTH), fn.Linear(WIDTH, 10))


def trained(train: common.Batch, options: Namespace, rng: Key, device: torch.device) -> Params:
    """Train each stage on its worker, and return the whole params."""
    first, drawn = fn.split(rng)
    stages, opt = dist.get_world_size(), fn.AdamW(3e-3)
    cuts = [len(net) * i // stages for i in range(1, stages)]
    step = distributed.pipeline(fn.train_step(net, fn.CrossEntropy(), opt), cuts, options.schedule, options.microbatches)
    params = fn.tree.to(net.init(first), device)
    state = opt.init(params)
    images, labels = train
    for i in range(options.steps):
        rows = fn.random.permutation(fn.fold_in(drawn, i), len(labels))[:BATCH]
        params, state, value = step(params, state, images[rows].to(device), labels[rows].to(device))
        if (i + 1) % max(1, options.steps // 5) == 0:
            print(f"step {i + 1:4}  loss {float(value):.3f}", flush=True)
    return step.whole(params)


def main(given: list[str] | None = None) -> None:
    """Draw the schedule, train, and print the accuracy."""
    schedules = {"schedule": (("1f1b", "gpipe", "zero_bubble"), "order of the work")}
    micro = (8, "number of micro-batches per step")
    options = common.arguments(__doc__, given, schedules, resumable=False, steps=150, microbatches=micro)
    data, rng = fn.split(fn.key(options.seed))
    train, (images, labels) = common.digits(data)
    with starting.workers() as device:
        what = options.schedule, dist.get_world_size(), options.microbatches
        print(distributed.timeline(*what))
        print(f"workers wait {distributed.bubble(*what):.1%} of the time, if all stages take equally long\n")
        params = trained(train, options, rng, device)
        found = fn.evaluate(net, params, (images.to(device), labels.to(device)), [fn.accuracy])
        print(f"test accuracy {found['accuracy']:.3f}")


if __name__ == "__main__":
    main()
