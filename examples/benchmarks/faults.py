"""What page faults cost: steps of funcnet and of torch.nn, each in its own process, with and without ``retain_freed_memory``.

A step gives back what it kept, and glibc may hand that on to the system, from which it comes again page by page. The medians
of the steps' ms and page faults are printed, on one thread.

    python -m examples.benchmarks.faults --steps 40
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

WORKLOADS = ("lenet", "bigmlp", "gpt", "lstm", "resnet")


def measure(workload: str, peer: str, kept: bool, steps: int) -> tuple[float, float]:
    """Take steps in this process; return the medians of their ms and page faults."""
    import torch

    from examples.benchmarks.peers import funcnet, torch_nn
    from examples.benchmarks.workloads import WORKLOADS as ALL
    from funcnet.kernels import retain_freed_memory

    torch.set_num_threads(1)
    if kept:
        retain_freed_memory()
    contenders = (funcnet if peer == "funcnet" else torch_nn).contenders(ALL[workload], ("eager",))
    training = contenders[-1].make()  # donated, or with the fused optimizer
    training.run(5)
    rows = []
    for _ in range(steps):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        training.run(1)
        rows.append((1e3 * (time.perf_counter() - began), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
    return tuple(map(statistics.median, zip(*rows, strict=True)))


def main(arguments=None):
    """Measure all in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--steps", type=int, default=40, help="how many steps are taken of each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*json.loads(options.one), options.steps)))
        return
    print(f"{'ms a step (page faults)':24}{'as it comes':>22}{'retain_freed_memory':>22}")
    for workload in options.workloads:
        for peer in ("funcnet", "torch.nn"):
            cells = [_in_a_process([workload, peer, kept], options.steps) for kept in (False, True)]
            print(
                f"{workload + ' ' + peer:24}" + "".join(f"{f'{ms:.1f} ({faults:.0f})':>22}" for ms, faults in cells), flush=True
            )


def _in_a_process(job, steps):
    command = [sys.executable, "-m", "examples.benchmarks.faults", "--one", json.dumps(job), "--steps", str(steps)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
