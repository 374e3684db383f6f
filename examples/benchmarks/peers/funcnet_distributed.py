"""funcnet's distributed training: the same pure step under ``data_parallel``, with shards, and pipelines.

Nets and losses are the same as in ``peers.funcnet``, and the optimizers are donated.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist

import funcnet as fn
from examples.benchmarks import collectives
from examples.benchmarks.peers.funcnet import LOSSES, NETS
from examples.benchmarks.peers.torch_distributed import rows
from examples.benchmarks.pipelines import BATCH, LAYERS, MICROBATCHES, SCHEDULES, SIDE, Pipeline, Span
from examples.benchmarks.workloads import Contender, Training, Workload
from funcnet import distributed

KINDS = ("data parallel", "sharded optimizer", "sharded params")


class Parallel(Training):
    """A pure step on this worker's rows."""

    def __init__(self, workload: Workload, kind: str) -> None:
        """Draw the same params on every worker, and the batch."""
        name, settings = workload.optimizer
        opt = getattr(fn, name)(**settings, **({"fused": True} if name == "SGD" else {}))
        opt = fn.donate(distributed.shard_optimizer(opt) if kind == "sharded optimizer" else opt)
        net = NETS[workload.name]()
        self.step = distributed.data_parallel(fn.train_step(net, LOSSES[workload.loss], opt))
        self.params = net.init(0)
        self.size = fn.tree.size(self.params)
        if kind == "sharded params":
            from torch.distributed.device_mesh import init_device_mesh

            self.params = distributed.shard(self.params, init_device_mesh("cpu", (dist.get_world_size(),)))
        self.state = opt.init(self.params)
        self.batch = [rows(leaf) for leaf in workload.draw()]

    def run(self, calls: int) -> None:
        """Take steps, without keeping the old params and state alive."""
        (x, target), params, state = self.batch, self.params, self.state
        value: Any = None
        del self.params, self.state
        with torch.inference_mode():
            for _ in range(calls):
                params, state, value = self.step(params, state, x, target)
        self.params, self.state, self.last = params, state, value

    def value(self) -> float:
        """Return the last step's loss over all rows."""
        return float(self.last)


class Silent(Parallel):
    """A data-parallel step without communication."""

    def __init__(self, workload: Workload) -> None:
        """Take the first step with communication, as it compares the workers' params."""
        super().__init__(workload, "data parallel")
        super().run(3)

    def run(self, calls: int) -> None:
        """Take steps on this worker's rows only."""
        with collectives.silent():
            super().run(calls)

    def calls(self) -> list[collectives.Call]:
        """Return the collectives of a step."""
        with collectives.recorded() as calls:
            super().run(1)
        return calls


def contenders(workload: Workload) -> list[Contender]:
    """Return funcnet's contender for each kind of parallelism."""
    return [Contender(f"funcnet, {kind}", f"funcnet {kind}", partial(Parallel, workload, kind)) for kind in KINDS]


class FuncnetPipeline(Pipeline):
    """A pure step whose net is cut in the middle."""

    def __init__(self, schedule: str) -> None:
        """Draw the same params on every worker, which keeps only its stage."""
        net = fn.serial(*[fn.Linear(SIDE, SIDE), fn.ReLU()] * LAYERS)
        opt = fn.donate(fn.AdamW(lr=1e-3))
        stages = dist.get_world_size()
        cuts = [2 * LAYERS * i // stages for i in range(1, stages)]
        self.step = distributed.pipeline(fn.train_step(net, fn.MSE(), opt), cuts, schedule, MICROBATCHES)
        self.params = self.step.part(net.init(0))
        self.state = opt.init(self.params)
        self.batch = fn.random.normal(1, (BATCH, SIDE)), fn.random.normal(2, (BATCH, SIDE))

    def run(self, calls: int) -> None:
        """Take steps."""
        with torch.inference_mode():
            for _ in range(calls):
                self.params, self.state, _ = self.step(self.params, self.state, *self.batch)

    def traced(self) -> list[Span]:
        """Take a step, and return the times at which the stage computed."""
        with torch.inference_mode():
            (self.params, self.state, _), trace = self.step.traced(self.params, self.state, *self.batch)
        return [(one.start, one.end) for one in trace]


def pipelines() -> list[Contender]:
    """Return funcnet's schedules."""
    return [Contender(f"funcnet, {name}", "funcnet pipeline", partial(FuncnetPipeline, name)) for name in SCHEDULES]
