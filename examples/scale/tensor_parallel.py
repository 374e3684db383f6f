"""Tensor parallelism: the transformer of ``examples.characters``, with every large matrix divided over the workers.

Attention is divided by heads, the other layers of a block by columns and by rows, and the embedding by rows. All workers compute
the whole batch, and the layers are the same as in one process.

    torchrun --nproc-per-node=2 examples/scale/tensor_parallel.py --steps 100
    python -m examples.scale.tensor_parallel
"""

import sys
from argparse import Namespace
from pathlib import Path

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


def trained(train: Tensor, options: Namespace, rng: Key, device: torch.device) -> Params:
    """Train with each matrix divided over the workers, and return the whole params."""
    first, drawn = fn.split(rng)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    plan = distributed.tensor_parallel_plan(characters.net, mesh)
    whole, opt = fn.tree.to(characters.net.init(first), device), characters.optimizer(options.steps)
    params = distributed.shard(whole, mesh, plan)
    print(f"params: {fn.tree.nbytes(whole) / 1e6:.3g} MB, of which a worker holds {fn.tree.nbytes(params) / 1e6:.3g} MB")
    state = opt.init(params)
    step = distributed.tensor_parallel(fn.train_step(characters.net, characters.loss, opt), mesh)
    for i in range(1, options.steps + 1):
        x, target = characters.pieces(train, fn.fold_in(drawn, i), options.batch)
        params, state, value = step(params, state, x.to(device), target.to(device))
        if i % max(1, options.steps // 10) == 0:
            print(f"step {i:5}  training loss  {float(value):.3f}", flush=True)
    trained: Params = distributed.unshard(params)
    return trained


def main(given: list[str] | None = None) -> None:
    """Train, and print the held-out loss."""
    batch = (characters.BATCH, "number of pieces per step")
    options = common.arguments(__doc__, given, threads=None, resumable=False, steps=100, batch=batch)
    train, test = characters.split_text()
    with starting.workers() as device:
        params = trained(train, options, fn.key(options.seed), device)
        if dist.get_rank() == 0:
            found = fn.evaluate(characters.net, params, characters.in_order(test), loss=characters.loss)
            print(f"held out {found['loss']:.3f} nats per character")


if __name__ == "__main__":
    main()
