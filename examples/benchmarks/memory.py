"""The memory for the backward pass: caches and peaks of deep nets and long scans, and peaks of whole training steps.

Each row is measured in its own process, on one thread. The size of the cache is the bytes of its tensors, counting shared memory
once, without params and x. The peak is the rise of the resident memory in one forward and one backward pass, or in a step,
including the gradients of params and the memory that the allocator keeps.

    python -m examples.benchmarks.memory --page examples/benchmarks/results/MEMORY.md
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from math import isqrt
from typing import Any

from examples.benchmarks.command import file, new_parser, positive, printed, run_command

DEPTHS, STEPS = (32, 128), (64, 256)
NETS = ("serial", "remat in √n segments", "repeat", "repeat of remat", "reversible", "repeat of reversible")
SCANS = ("scan", "scan, checkpoint_every=√T")
STEPPED = ("serial", "repeat")
OPTIMIZERS = ("SGD", "SGD, donated", "Adam", "Adam, donated")
WIDE, LAYERS, FEW = 512, 64, 32


def made(name: str, n: int, size: int, rows: int) -> tuple[Any, Any]:
    """Return a net of n blocks, or a scan, and its input."""
    import torch

    import funcnet as fn

    if name.startswith("scan"):
        every = isqrt(n) if "checkpoint" in name else None
        given = torch.randn(n, rows, size), (torch.randn(rows, size), torch.randn(rows, size))
        return fn.scan(fn.LSTMCell(size, size), output_is_carry=True, checkpoint_every=every), given
    inner = fn.serial(fn.LayerNorm(size), fn.Linear(size, 4 * size), fn.GELU(), fn.Linear(4 * size, size))
    block, pair = fn.residual(inner), fn.reversible(inner, inner)
    x = torch.randn(rows, size)
    nets = {
        "serial": lambda: fn.serial(*[block] * n),
        "remat in √n segments": lambda: fn.remat(fn.serial(*[block] * n), segments=isqrt(n)),
        "repeat": lambda: fn.repeat(block, n),
        "repeat of remat": lambda: fn.repeat(fn.remat(block), n),
        "reversible": lambda: fn.serial(*[pair] * (n // 2)),
        "repeat of reversible": lambda: fn.repeat(pair, n // 2),
    }
    return nets[name](), (x, torch.randn(rows, size)) if "reversible" in name else x


def bytes_of(values: Any, *without: Any) -> int:
    """Return the bytes of a tree's memory, counting shared memory once, without the memory of other trees."""
    from funcnet import tree

    def memories(one: Any) -> dict[int, int]:
        storages = [leaf.untyped_storage() for leaf in tree.leaves(one) if hasattr(leaf, "untyped_storage")]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    known = memories(without)
    return sum(size for place, size in memories(values).items() if place not in known)


def filled(make: Callable[[Any], Any]) -> Any:
    """Return the tensors that ``make`` describes on the meta device, filled with small numbers, without using more memory."""
    import torch

    import funcnet as fn

    draw = lambda leaf: torch.empty(leaf.shape, dtype=leaf.dtype).normal_(std=0.02) if leaf.is_floating_point() else leaf
    return fn.tree.map(draw, make(fn.key(0).to("meta")))


def measure(name: str, n: int, size: int, rows: int) -> tuple[int, int, float]:
    """Return the bytes of the cache and of the peak, and the ms of a forward and a backward pass in this process."""
    import torch

    from funcnet import tree

    torch.set_num_threads(1)
    small, tiny = made(name, 4, size, 1)
    few = filled(small.init)
    small.vjp(few, *small.apply(few, tiny)[::-1])  # load the kernels
    net, x = made(name, n, size, rows)
    params = filled(net.init)
    kept, times = 0, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        began = time.perf_counter()
        y, cache = net.apply(params, x)
        gradients = net.vjp(params, cache, tree.map(torch.ones_like, y))
        times.append(1e3 * (time.perf_counter() - began))
        kept = bytes_of(cache, params, x)
        del y, cache, gradients
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return kept, peak, statistics.median(times)


def measure_steps(name: str, optimizer: str, in_backward: bool, n: int, size: int, rows: int) -> tuple[int, int, float]:
    """Return the bytes of the params and of the peak, and the ms of a training step in this process.

    The peak includes the results of the first step, unless the optimizer is donated.
    """
    import torch

    import funcnet as fn

    torch.set_num_threads(1)
    opt: fn.Optimizer = {"SGD": fn.SGD(lr=1e-3), "Adam": fn.Adam(lr=1e-3)}[optimizer.split(",", maxsplit=1)[0]]
    opt = fn.donate(opt) if "donated" in optimizer else opt
    made = {"serial": lambda n: fn.serial(*[fn.Linear(size, size)] * n), "repeat": lambda n: fn.repeat(fn.Linear(size, size), n)}
    x, few = torch.randn(rows, size), made[name](2)
    small = few.init(0)
    fn.train_step(few, fn.MSE(), opt, in_backward=in_backward)(small, opt.init(small), x, x)  # load the kernels
    step = fn.train_step(made[name](n), fn.MSE(), opt, in_backward=in_backward)
    params = filled(step.net.init)
    state = fn.tree.map(torch.zero_, opt.init(params))  # zeros can take memory only when written
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(3):
        began = time.perf_counter()
        params, state, _ = step(params, state, x, x)
        times.append(1e3 * (time.perf_counter() - began))
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return fn.tree.nbytes(params), peak, statistics.median(times)


def table(size: int, rows: int) -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| net | n | cache, MB | peak, MB | ms |"
    yield "|---|--:|--:|--:|--:|"
    for names, lengths in ((NETS, DEPTHS), (SCANS, STEPS)):
        for name in names:
            for n in lengths:
                kept, peak, ms = _in_a_process([name, n, size, rows])
                yield f"| {name} | {n} | {kept / 1e6:.1f} | {peak / 1e6:.0f} | {ms:.0f} |"


def table_of_steps() -> Iterator[str]:
    """Yield the lines of the table of whole steps."""
    yield "| net | optimizer | peak, MB | in backward, MB | ms | in backward, ms |"
    yield "|---|---|--:|--:|--:|--:|"
    for name in STEPPED:
        for optimizer in OPTIMIZERS:
            plain, layerwise = [_in_a_process([name, optimizer, one, LAYERS, WIDE, FEW]) for one in (False, True)]
            peaks = f"{plain[1] / 1e6:.0f} | {layerwise[1] / 1e6:.0f}"
            yield f"| {name} | {optimizer} | {peaks} | {plain[2]:.0f} | {layerwise[2]:.0f} |"


def _in_a_process(one: list[Any]) -> list[Any]:
    """Measure a row in its own process; for whole steps the allocator returns freed memory, so the peak is the memory in use."""
    command = [sys.executable, "-m", "examples.benchmarks.memory", "--one", json.dumps(one)]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536"} if len(one) > 4 else {}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **given_back})
    found: list[Any] = json.loads(done.stdout)
    return found


HEAD = """# Memory for the backward pass

`python -m examples.benchmarks.memory --page examples/benchmarks/results/MEMORY.md`,
torch {torch}, {machine}, one thread, float32.

A block is `residual(serial(LayerNorm({size}), Linear({size}, {wide}), GELU(), Linear({wide}, {size})))` on {rows} rows, and a net
has n blocks. A reversible net has pairs of {rows} rows, and n/2 layers `reversible(f, f)`, where f is the `serial` in the block.
A scan takes n steps of `LSTMCell({size}, {size})` on {rows} rows. The cache is everything that the forward pass keeps for the
backward pass, without params and x. The peak is the rise of the process's memory in a forward and a backward pass, including y,
gy, gx and the gradients of the params. The time includes both passes.

"""

STEP_HEAD = """
## Whole training steps

The peak is the rise of the process's memory in three steps of `train_step(net, MSE(), opt)`, and in three of `train_step(net,
MSE(), opt, in_backward=True)`, which updates each layer in the backward pass and releases its gradient. The net has {layers}
layers `Linear({wide}, {wide})`, {mb:.0f} MB of params, and {few} rows. Without `donate`, the peak includes new params and state.
Freed memory goes back to the system (`MALLOC_MMAP_THRESHOLD_=65536`), so that the peak is the memory in use.

"""


def main(arguments: list[str] | None = None) -> None:
    """Measure all rows, and print the table or write the page."""
    parser = new_parser("memory", __doc__)
    parser.add_argument("--size", type=positive, default=64, help="number of features")
    parser.add_argument("--rows", type=positive, default=512, help="number of rows of x")
    parser.add_argument("--page", type=file, help="file to write the page to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one = json.loads(options.one)
        print(json.dumps((measure if len(one) == 4 else measure_steps)(*one)))
        return
    about = STEP_HEAD.format(layers=LAYERS, wide=WIDE, few=FEW, mb=4e-6 * LAYERS * WIDE * (WIDE + 1))
    lines = printed(chain(table(options.size, options.rows), about.splitlines(), table_of_steps()))
    if options.page:
        import torch

        words = {"size": options.size, "wide": 4 * options.size, "rows": options.rows, "torch": torch.__version__}
        head = HEAD.format(machine=platform.machine(), **words)
        options.page.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
