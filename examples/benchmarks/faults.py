"""The cost of page faults: steps of funcnet and torch.nn in their own processes, with and without ``retain_freed_memory``.

A step frees its memory, and glibc can return it to the system, which then supplies it again page by page. The command prints the
median ms and page faults of the steps, and the peak of the resident memory, for one thread. funcnet's contenders are a plain loop
of ``apply``, ``value_and_grad``, ``grads`` and ``update``, and ``train_step`` with a donated optimizer. To measure glibc's
default, an environment variable with no other effect keeps funcnet from calling ``retain_freed_memory``.

    python -m examples.benchmarks.faults --steps 40
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from examples.benchmarks.command import add_names, new_parser, positive, run_command

WORKLOADS = ("lenet", "bigmlp", "gpt", "lstm", "resnet")


PEERS = ("funcnet, bare loop", "funcnet, donated step", "torch.nn, fused")
AS_IT_COMES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}  # glibc's default


def measure(workload: str, peer: str, steps: int) -> tuple[float, float, float]:
    """Take steps in this process; return the median ms and page faults, and the peak of the resident memory in MB."""
    import torch

    from examples.benchmarks.measure import peak
    from funcnet.kernels import retain_freed_memory

    torch.set_num_threads(1)
    retain_freed_memory()
    run = training(workload, peer)
    run(5)
    rows = []
    for _ in range(steps):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        run(1)
        rows.append((1e3 * (time.perf_counter() - began), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
    ms, faults = map(statistics.median, zip(*rows, strict=True))
    return ms, faults, peak() / 2**20


def training(workload: str, peer: str) -> Callable[[int], Any]:
    """Return a function that takes a number of steps."""
    from examples.benchmarks.peers import funcnet, torch_nn
    from examples.benchmarks.workloads import WORKLOADS as ALL

    if peer == "funcnet, bare loop":
        return bare_loop(ALL[workload])
    module = torch_nn if peer.startswith("torch.nn") else funcnet
    run: Callable[[int], Any] = module.contenders(ALL[workload], ("eager",))[-1].make().run
    return run


def bare_loop(workload: Any) -> Callable[[int], None]:
    """Return a custom loop that calls neither ``train_step`` nor ``fit``."""
    import torch

    import funcnet as fn
    from examples.benchmarks.peers.funcnet import LOSSES, NETS

    kind, settings = workload.optimizer
    net, loss, opt = NETS[workload.name](), LOSSES[workload.loss], getattr(fn, kind)(**settings)
    params, (x, target) = net.init(0), workload.draw()
    state = opt.init(params)

    def run(count: int) -> None:
        nonlocal params, state
        with torch.inference_mode():
            for _ in range(count):
                y, cache = net.apply(params, x)
                _, gy = loss.value_and_grad(y, target)
                grads = net.grads(params, cache, gy)
                params, state = opt.update(grads, state, params)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Measure all in turns, and print the table."""
    parser = new_parser("faults", __doc__)
    add_names(parser, "workload", tuple(WORKLOADS))
    parser.add_argument("--steps", type=positive, default=40, help="number of steps of each contender")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        workload, peer = json.loads(options.one)
        print(json.dumps(measure(workload, peer, options.steps)))
        return
    print(f"{'ms a step (page faults; peak MB)':40}{'as it comes':>26}{'retain_freed_memory':>26}")
    for workload in options.workloads:
        for peer in PEERS:
            found = [_in_a_process([workload, peer], options.steps, more) for more in (AS_IT_COMES, {})]
            cells = [f"{ms:.1f} ({faults:.0f}; {peak:.0f})" for ms, faults, peak in found]
            print(f"{f'{workload}, {peer}':40}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def _in_a_process(job: list[str], steps: int, more: dict[str, str]) -> list[float]:
    command = [sys.executable, "-m", "examples.benchmarks.faults", "--one", json.dumps(job), "--steps", str(steps)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **more})
    found: list[float] = json.loads(ran.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    run_command(main)
