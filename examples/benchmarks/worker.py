"""One job in its own process, with a fixed number of threads. The last line it prints is the result in JSON."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS = {
    "nn": ("torch_nn", ("eager",)),
    "nn-compile": ("torch_nn", ("compiled",)),
    "jax": ("jax", ("jit", "scan")),
    "thinc": ("thinc", ("thinc",)),
}
ROOT = Path(__file__).parents[2]

Job = dict[str, Any]
"""``task``, "time", "memory" or "machine", ``threads``, ``turn``; ``workload``, ``funcnet``, ``peers``, ``rounds``; ``label``.

``cache`` is Inductor's folder of compiled code; it is empty when a run begins, so that first calls compile."""


def cores(threads: int) -> list[int]:
    """Return the cores for a number of threads: the last ones allowed, or fewer."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return allowed[-threads:]


def environment(threads: int, cache: str | None = None) -> dict[str, str]:
    """Return environment variables that give every framework this many threads, and Inductor the folder ``cache``."""
    limits = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "BLIS")}
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if threads == 1 else ""
    # Compile in one process: torch's pool of processes would share the cores with the measurement.
    limits["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if cache is not None:
        limits["TORCHINDUCTOR_CACHE_DIR"] = cache
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **limits, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def perform(job: Job) -> dict[str, Any]:
    """Run a job in its own process; if it fails, return notes about the failure."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.benchmarks.worker", json.dumps(job)],
        env=environment(job["threads"], job.get("cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return {"notes": [f"{job.get('label', job['task'])} is left out: its process ended with {done.returncode}: {last}"]}


def gathered(job: Job) -> tuple[list[Any], list[str]]:
    """Return all contenders of a workload with their modules, and notes on peers that are not installed."""
    from examples.benchmarks.workloads import WORKLOADS

    workload, found, notes = WORKLOADS[job["workload"]], [], []
    for name, ways in [("funcnet", tuple(job["funcnet"])), *[PEERS[peer] for peer in job["peers"]]]:
        module = importlib.import_module(f"examples.benchmarks.peers.{name}")
        try:
            found += [(module, contender) for contender in module.contenders(workload, ways)]
        except ImportError as error:
            notes.append(f"{name} is left out: {error}")
    return found, notes


def time(job: Job) -> dict[str, Any]:
    """Measure the times of all contenders of a workload, and count the FLOPs of a step."""
    from examples.benchmarks import measure
    from examples.benchmarks.peers import torch_nn
    from examples.benchmarks.workloads import WORKLOADS
    from funcnet.kernels import retain_freed_memory

    found, missing = gathered(job)
    for module, contender in {contender.family: (module, contender) for module, contender in found}.values():
        module.start(contender)  # the additional work of a process's first compilation does not count
    retain_freed_memory()  # for everything that uses the C library's malloc, torch.nn too
    ready, notes = measure.prepared([contender for _, contender in found], job["turn"])
    rows = measure.rounds(ready, job["rounds"])
    return {"rows": rows, "notes": missing + notes, "flops": torch_nn.flops(WORKLOADS[job["workload"]])}


def memory(job: Job) -> dict[str, Any]:
    """Measure the peak memory of one contender, after its framework has initialized itself."""
    from examples.benchmarks import measure

    module, contender = next(pair for pair in gathered(job)[0] if pair[1].label == job["label"])
    module.start(contender)
    return {"memory": measure.memory(contender), "notes": []}


def machine(job: Job) -> dict[str, Any]:
    """Measure the machine's best product."""
    from examples.benchmarks import measure

    return {"gemm": measure.gemm_peak(job["turn"]), "notes": []}


def main(arguments: Sequence[str]) -> None:
    """Do the job."""
    job = json.loads(arguments[0])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores(job["threads"]))
    import torch

    torch.set_num_threads(job["threads"])
    print(json.dumps({"time": time, "memory": memory, "machine": machine}[job["task"]](job)))


if __name__ == "__main__":
    main(sys.argv[1:])
