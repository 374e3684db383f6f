"""torch's distributed training: DistributedDataParallel, ZeroRedundancyOptimizer, FSDP2 and its pipelines.

Nets, losses and optimizers are the same as in ``torch_nn``. The optimizers are fused, except SGD on sharded parameters, which has
no fused implementation.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel

from examples.benchmarks import collectives
from examples.benchmarks.peers.torch_nn import LOSSES, MODULES, Residual
from examples.benchmarks.pipelines import BATCH, LAYERS, MICROBATCHES, SIDE, Pipeline, Span
from examples.benchmarks.workloads import Contender, Training, Workload

SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


def rows(leaf: Tensor) -> Tensor:
    """Return this worker's rows."""
    rank, size = dist.get_rank(), dist.get_world_size()
    return leaf[len(leaf) * rank // size : len(leaf) * (rank + 1) // size].clone()


class Parallel(Training):
    """A module that torch's wrappers train on this worker's rows."""

    def __init__(self, workload: Workload, wrap: Callable[[nn.Module], nn.Module], sharded_optimizer: bool = False) -> None:
        """Make the same module on every worker, and draw the batch."""
        torch.manual_seed(0)
        module = MODULES[workload.name]()
        self.size = sum(p.numel() for p in module.parameters())
        self.module = wrap(module)
        name, settings = workload.optimizer
        kind: Any = getattr(torch.optim, name)
        kind = partial(ZeroRedundancyOptimizer, optimizer_class=kind) if sharded_optimizer else kind
        fused = {"foreach": True} if name == "SGD" and isinstance(self.module, FSDPModule) else {"fused": True}
        self.optimizer = kind(self.module.parameters(), **settings, **fused)
        self.batch = [rows(leaf) for leaf in workload.draw()]
        self.loss = LOSSES[workload.loss]

    def run(self, calls: int) -> None:
        """Reset the gradients, run forward, backward and the optimizer."""
        x, target = self.batch
        value = torch.zeros(())
        for _ in range(calls):
            self.optimizer.zero_grad()
            value = self.loss(self.module(x), target)
            value.backward()
            self.optimizer.step()
        self.last = value.detach()

    def value(self) -> float:
        """Return the mean of the workers' last losses."""
        total = self.last.clone()
        dist.all_reduce(total)
        return float(total) / dist.get_world_size()


def data_parallel(module: nn.Module, bucket_view: bool = True) -> DistributedDataParallel:
    """Wrap a module; with ``bucket_view`` gradients are views of the buckets, not copied into them."""
    return DistributedDataParallel(module, gradient_as_bucket_view=bucket_view)


def by_layer(module: nn.Module) -> nn.Module:
    """Shard each residual block or layer with parameters, and the rest."""
    for child in module.children():
        if isinstance(child, Residual) or any(True for _ in child.parameters()):
            fully_shard(child, mesh=_mesh())
    return cast(nn.Module, fully_shard(module, mesh=_mesh()))


def whole(module: nn.Module) -> nn.Module:
    """Shard the parameters of the whole module together."""
    return cast(nn.Module, fully_shard(module, mesh=_mesh()))


def _mesh() -> Any:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def contenders(workload: Workload) -> list[Contender]:
    """Return torch's contenders for each kind of parallelism, one per setting."""
    made = {
        ("data parallel", "DistributedDataParallel"): partial(Parallel, workload, partial(data_parallel, bucket_view=False)),
        ("data parallel", "DistributedDataParallel, bucket views"): partial(Parallel, workload, data_parallel),
        ("sharded optimizer", "ZeroRedundancyOptimizer"): partial(Parallel, workload, data_parallel, True),
        ("sharded params", "fully_shard, each layer"): partial(Parallel, workload, by_layer),
        ("sharded params", "fully_shard, whole net"): partial(Parallel, workload, whole),
    }
    return [Contender(label, f"torch {kind}", make) for (kind, label), make in made.items()]


class Silent(Parallel):
    """DistributedDataParallel without communication; ``found`` has the sizes of the buckets that it would reduce."""

    def __init__(self, workload: Workload) -> None:
        """Register a hook instead of the all-reduce."""
        super().__init__(workload, data_parallel)
        self.found: dict[int, int] = {}
        cast(DistributedDataParallel, self.module).register_comm_hook(self.found, _nothing)
        self.run(3)  # buckets are rebuilt after the first step

    def calls(self) -> list[collectives.Call]:
        """Return the all-reduces of a step."""
        self.found.clear()
        self.run(1)
        return [("all_reduce", [(torch.Size([size]), torch.float32)]) for size in self.found.values()]


# torch requires this annotation, which its stubs lack
def _nothing(found: dict[int, int], bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    found[bucket.index()] = bucket.buffer().numel()
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


class TorchPipeline(Pipeline):
    """A stage of torch's pipeline."""

    def __init__(self, schedule: str) -> None:
        """Make this worker's layers."""
        rank, size = dist.get_rank(), dist.get_world_size()
        layers = [one for _ in range(LAYERS // size) for one in (nn.Linear(SIDE, SIDE), nn.ReLU())]
        self.module = nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-3, fused=True)
        self.stage = PipelineStage(self.module, rank, size, torch.device("cpu"))
        self.schedule = SCHEDULES[schedule](self.stage, MICROBATCHES, nn.functional.mse_loss)
        self.batch = torch.randn(BATCH, SIDE), torch.randn(BATCH, SIDE)
        self.is_first, self.is_last = rank == 0, rank == size - 1

    def run(self, calls: int) -> None:
        """Take steps: only the first stage gets x, only the last the target."""
        x, target = self.batch
        for _ in range(calls):
            self.optimizer.zero_grad()
            last: dict[str, Any] = {"target": target, "losses": []} if self.is_last else {}
            self.schedule.step(*[x] * self.is_first, **last)
            self.optimizer.step()

    def traced(self) -> list[Span]:
        """Take a step, and return the times at which the stage computed."""
        spans: list[Span] = []
        verbs = ("forward_one_chunk", "backward_one_chunk")
        for name in verbs:
            setattr(self.stage, name, _timed(getattr(self.stage, name), spans))
        self.run(1)
        for name in verbs:
            delattr(self.stage, name)
        return spans


def _timed(work: Callable[..., Any], spans: list[Span]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = work(*args, **kwargs)
        spans.append((began, time.perf_counter()))
        return result

    return timed


def pipelines() -> list[Contender]:
    """Return torch's schedules with one stage per worker."""
    return [Contender(f"torch, {name}", "torch pipeline", partial(TorchPipeline, name)) for name in SCHEDULES]
