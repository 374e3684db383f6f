"""Inputs of the simulation: a hypothetical net and cluster, and measured numbers of this machine."""

import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from attrs import evolve

import funcnet as fn
from examples.benchmarks.processes import together
from examples.benchmarks.workloads import WORKLOADS, Workload
from examples.scale.costs import Link, Machine, Net

BLOCKS, WIDTH, HEADS, LENGTH, VOCABULARY, SEQUENCES = 32, 4096, 32, 4096, 50304, 1024
PEAK, REACHED, HBM, LINKS_REACHED = 989e12, 0.45, 3.35e12, 0.8
SMALL, LARGE = 1 << 10, 1 << 22
"""Sizes in bytes of the all-reduces that determine latency and bandwidth."""

CLUSTER = Machine(
    flops=PEAK * REACHED,
    update=HBM * LINKS_REACHED,
    memory=80e9,
    per_node=8,
    within=Link(3e-6, 450e9 * LINKS_REACHED),
    between=Link(10e-6, 50e9 * LINKS_REACHED),
    overlap=0.9,
)

ROWS = (
    ("net", f"{BLOCKS} blocks of width {WIDTH}, {HEADS} heads, {LENGTH} tokens, vocabulary {VOCABULARY}", "chosen"),
    ("batch", f"{SEQUENCES} sequences, {SEQUENCES * LENGTH / 1e6:.1f} M tokens, for every number of devices", "chosen"),
    ("FLOPs, cache", "{forward:.3g} forward, {backward:.3g} backward, {kept:.3g} GB kept, for a sequence", "`fn.summary`"),
    ("params", "{params:.3g}, float32, as their gradients and Adam's two moments; products in bfloat16", "`fn.summary`"),
    ("peak rate", f"{PEAK / 1e12:.0f} TFLOP/s", "data sheet of the H100 SXM, bfloat16, dense"),
    ("rate reached", f"{REACHED:.0%} of the peak", "assumed"),
    ("memory", f"80 GB at {HBM / 1e12:.2f} TB/s", "data sheet"),
    ("link within a node of 8", "450 GB/s in each direction, 3 µs", "data sheet of NVLink 4; latency assumed"),
    ("link between nodes", "400 Gbit/s for each device, 10 µs", "InfiniBand NDR; latency assumed"),
    ("links and memory reached", f"{LINKS_REACHED:.0%} of their rates", "assumed"),
    ("overlap", f"{CLUSTER.overlap:.0%} of communication does not slow down simultaneous computation", "assumed"),
    ("buckets", "8 for the gradients of a net", "as `data_parallel` makes them"),
    ("a replica", "8 devices, for tensor and pipeline parallelism; zero-bubble schedule", "chosen"),
)


def _block() -> fn.Layer:
    attention = fn.residual(fn.serial(fn.LayerNorm(WIDTH), fn.MultiHeadAttention(WIDTH, HEADS, is_causal=True)))
    wide = (fn.Linear(WIDTH, 4 * WIDTH), fn.GELU(), fn.Linear(4 * WIDTH, WIDTH))
    return fn.serial(attention, fn.residual(fn.serial(fn.LayerNorm(WIDTH), *wide)))


@cache
def gpt() -> Net:
    """Return the hypothetical net, from the summaries of a block and of the head; half precision halves the kept bytes."""
    x = torch.empty(1, LENGTH, WIDTH, device="meta")
    block, head = (fn.summary(one, x).total for one in (_block(), fn.Linear(WIDTH, VOCABULARY, bias=False)))
    return Net(
        layers=BLOCKS,
        params=BLOCKS * block.params + 2 * head.params,  # the embeddings have as many params as the head
        forward=BLOCKS * block.flops + head.flops,
        backward=BLOCKS * block.backward_flops + head.backward_flops,
        activation=2 * LENGTH * WIDTH,
        kept=(BLOCKS * block.cache_bytes + head.cache_bytes) / 2,
    )


def median(run: Callable[[], Any], count: int) -> float:
    """Return the median seconds of some calls, after two warm-up calls."""
    times = []
    for _ in range(count + 2):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def _rows(workload: Workload, parts: int) -> list[Any]:
    """Return one worker's share of the batch."""
    return [leaf[: len(leaf) // parts].clone() for leaf in workload.draw()]


def single(name: str, count: int) -> dict[str, float]:
    """Measure, in one process, a step with all rows, a step with a quarter of them, and the optimizer's update."""
    from examples.benchmarks.peers import funcnet

    workload = WORKLOADS[name]
    step, opt, params = funcnet.parts(workload, donated=True)
    state = opt.init(params)
    grads = fn.tree.map(torch.zeros_like, params)

    def stepping(parts: int) -> Callable[[], Any]:
        batch = _rows(workload, parts)
        return lambda: step(params, state, *batch)  # donated: both are written to in place

    with torch.inference_mode():
        whole, quarter = median(stepping(1), count), median(stepping(4), count)
        update = median(lambda: opt.update(grads, state, params), count)
    per_batch = (whole - quarter) * 4 / 3
    return {"batch": per_batch, "update": update, "overhead": max(0.0, whole - per_batch - update), "whole": whole}


def sums(sizes: tuple[int, ...], count: int) -> list[float]:
    """Measure all-reduces in every worker: the median seconds for each size in bytes."""
    return [median(partial(dist.all_reduce, torch.zeros(size // 4)), count) for size in sizes]


def link(n: int, count: int) -> Link:
    """Return the link of n processes on this machine, from a small and a large all-reduce."""
    small, large = sorted(map(statistics.median, zip(*together(n, sums, (SMALL, LARGE), count), strict=True)))
    return Link(small / (2 * (n - 1)), 2 * (n - 1) / n * LARGE / max(large - small, 1e-9))


def of_workload(name: str) -> Net:
    """Return a workload of the benchmarks as a net, with its whole batch as one sequence."""
    from examples.benchmarks.peers import funcnet

    net, (x, _) = funcnet.NETS[name](), WORKLOADS[name].draw()
    total = fn.summary(net, x).total
    return Net(1, total.params, total.flops, total.backward_flops, 0.0, total.cache_bytes)


def machine_of(net: Net, times: dict[str, float], between: Link, cores: int) -> Machine:
    """Return this machine; computation and communication share its cores, so nothing overlaps."""
    return Machine(
        flops=(net.forward + net.backward) / times["batch"],
        update=net.params * net.update_bytes / times["update"],
        memory=0.0,
        per_node=1,
        within=between,
        between=between,
        overlap=0.0,
        cores=cores,
        overhead=times["overhead"],
    )


def part_of(net: Net, n: int) -> Net:
    """Return the net with one n-th of its batch as the sequence."""
    return evolve(net, forward=net.forward / n, backward=net.backward / n)


def parallel_step(name: str, count: int) -> tuple[float, int]:
    """Measure a data-parallel step, in every worker; return its seconds and how many collectives it has."""
    from examples.benchmarks import collectives
    from examples.benchmarks.peers.funcnet_distributed import Parallel

    training = Parallel(WORKLOADS[name], "data parallel")
    training.run(3)
    with collectives.recorded() as calls:
        training.run(1)

    def run() -> None:
        dist.barrier()
        began = time.perf_counter()
        training.run(1)
        times.append(time.perf_counter() - began)

    times: list[float] = []
    for _ in range(count):
        run()
    return statistics.median(times), len(calls)
