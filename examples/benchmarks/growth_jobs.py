"""The processes of ``growth``: each measures the times of all contenders on an axis, or the memory of one of them."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

from examples.benchmarks import growth_nets, measure
from examples.benchmarks.worker import environment

RUNS = 2
ROUNDS, TURN = 7, 0.02
LONGEST = 0.7
"""The limit in seconds for a step, and for all rounds of a contender at one size."""

LARGEST = 6000.0
"""The limit in MB for a training."""

COMPILING = 60.0
"""The limit in seconds for the first step."""

WARM = 4
"""The number of steps before memory is measured; funcnet makes plans in the first of them."""

Step = Callable[[], Any]


def _timed(step: Step, calls: int = 1) -> float:
    began = process_time()
    for _ in range(calls):
        step()
    return (process_time() - began) / calls


def _foreseen(points: dict[str, float], n: int) -> float:
    """Return the expected next point: extrapolated from the slope of the last two, or linearly from one."""
    sizes = [int(size) for size in points]
    if len(sizes) < 2:
        return 0.0
    values = [max(points[str(size)], 1e-9) for size in sizes]
    steep = max(values[-1] / values[-2], sizes[-1] / sizes[-2])
    return values[-1] * steep


def times(axis: str, names: Sequence[str]) -> dict[str, Any]:
    """Measure the times of contenders at all sizes of an axis."""
    from funcnet.kernels import retain_freed_memory

    retain_freed_memory()
    found: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    alive = {name: make for name, make in growth_nets.contenders().items() if name in names}
    for n in growth_nets.AXES[axis].sizes:
        alive = {name: make for name, make in alive.items() if _foreseen(found.get(name, {}), n) < 1e6 * LONGEST}
        steps = {name: _begun(name, make, axis, n, notes) for name, make in alive.items()}
        alive = {name: make for name, make in alive.items() if steps[name] is not None}
        for name, seconds in _rounds({name: step for name, step in steps.items() if step is not None}).items():
            found.setdefault(name, {})[str(n)] = 1e6 * seconds
    return {"points": found, "notes": notes}


def _begun(name: str, make: Callable[..., Step], axis: str, n: int, notes: list[str]) -> Step | None:
    """Return a step that has been taken once, or ``None`` if that fails or takes too long."""
    try:
        step = make(axis, n)
        first = _timed(step)
    except Exception as error:
        notes.append(f"{axis}: {name} is left out from {n} on: {measure.describe_error(error)}")
        return None
    if first > COMPILING:
        notes.append(f"{axis}: the line of {name} ends before {n}, since its first step takes {first:.0f} s")
        return None
    return step


def _rounds(steps: dict[str, Step]) -> dict[str, float]:
    """Return the median seconds of each step."""
    once = {name: min(_timed(step), _timed(step)) for name, step in steps.items()}
    columns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            if sum(columns[name]) < LONGEST:
                columns[name].append(_timed(step, max(1, round(TURN / max(once[name], 1e-6)))))
    return {name: statistics.median(column) for name, column in columns.items()}


def memory(axis: str, name: str) -> dict[str, Any]:
    """Measure one contender's peak memory in several runs, in MB above the resident memory before the training was made."""
    make, notes = growth_nets.contenders()[name], list[str]()
    sizes = growth_nets.AXES[axis].sizes
    make(axis, sizes[0])()  # load kernels and compilers
    runs: list[dict[str, float]] = [{} for _ in range(RUNS)]
    for run in runs:
        seconds: dict[str, float] = {}
        for n in sizes:
            if _foreseen(run, n) > LARGEST or _foreseen(seconds, n) > LONGEST:
                break
            run[str(n)], seconds[str(n)] = _peak(make, axis, n)
    return {"runs": runs, "notes": notes}


def _peak(make: Callable[..., Step], axis: str, n: int) -> tuple[float, float]:
    """Return the peak of two steps in MB, and the seconds of one; a slow step is not warmed up further."""
    measure.give_back()
    before = measure.resident()
    step = make(axis, n)
    step()
    seconds = 0.0
    for _ in range(WARM - 1):
        if (seconds := _timed(step)) > LONGEST:
            break
    measure.give_back()
    measure.begin_peak()
    for _ in range(2):
        step()
    return (measure.peak() - before) / 2**20, seconds


def perform(job: Sequence[Any], cached: str) -> dict[str, Any]:
    """Run a job in its own process; a failed one leaves a note."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.benchmarks.growth", "--job", json.dumps(job)],
        env={**environment(1, cached), **_given_back(job)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    note = f"{job[1]}: the process of {job[0]} of {job[2]} ended with {done.returncode}: {last}"
    return {"points": {}, "runs": [{} for _ in range(RUNS)], "notes": [note]}


def _given_back(job: Sequence[Any]) -> dict[str, str]:
    """Return environment variables that make glibc return freed memory at once, for jobs that measure memory."""
    return {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"} if job[0] == "memory" else {}


def work(job: list[Any]) -> None:
    """Run a job on one core, and print the answer."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    print(json.dumps({"times": times, "memory": memory}[job[0]](*job[1:])))
