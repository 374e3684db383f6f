"""How the cost of a training step grows: time and peak memory by width, depth, batch and sequence length.

funcnet eager and compiled beside torch.nn and JAX, on one thread in float32. Times are processor time: the median of some rounds,
in which contenders take turns, in the better of two processes for each axis; memory is measured in a process for each contender.
A line ends before the point that would take too long or too much memory. The page has a table of exponents: the slopes of the
lines in the plots.

    python -m examples.benchmarks.growth --out examples/benchmarks/results/growth
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

from examples.benchmarks import measure
from examples.benchmarks.worker import environment

ROUNDS, TURN = 7, 0.02
RUNS = 2
LONGEST, LARGEST = 0.5, 6000.0
COMPILING = 60.0

QUANTITIES = ("time", "memory", *[f"time, run {i}" for i in range(1, RUNS + 1)])

Points = dict[str, dict[str, float]]
"""By contender and size, which is a string as JSON has it: µs a step, or MB."""


def _timed(step: Callable[[], Any], calls: int = 1) -> float:
    began = process_time()
    for _ in range(calls):
        step()
    return (process_time() - began) / calls


def _foreseen(points: dict[str, float], n: int) -> float:
    """Return what the next point will be, if the line goes on as steep as between its last two, or linearly."""
    sizes = [int(size) for size in points]
    if len(sizes) < 2:
        return 0.0
    values = [max(points[str(size)], 1e-9) for size in sizes]
    steep = max(values[-1] / values[-2], sizes[-1] / sizes[-2])
    return values[-1] * steep


def times(axis: str, names: Sequence[str]) -> dict[str, Any]:
    """Measure the time of contenders at all sizes of an axis."""
    from examples.benchmarks import growth_nets
    from funcnet.kernels import retain_freed_memory

    retain_freed_memory()
    found: Points = {}
    notes: list[str] = []
    alive = {
        name: make for name, make in growth_nets.contenders().items() if name in names and (name, axis) not in growth_nets.SKIPPED
    }
    for n in growth_nets.AXES[axis].sizes:
        alive = {name: make for name, make in alive.items() if _foreseen(found.get(name, {}), n) < 1e6 * LONGEST}
        steps = {name: _begun(name, make, axis, n, notes) for name, make in alive.items()}
        alive = {name: make for name, make in alive.items() if steps[name] is not None}
        for name, seconds in _rounds({name: step for name, step in steps.items() if step is not None}).items():
            found.setdefault(name, {})[str(n)] = 1e6 * seconds
    return {"points": found, "notes": notes}


def _begun(name: str, make: Callable[..., Any], axis: str, n: int, notes: list[str]) -> Callable[[], Any] | None:
    """Return a step that has been taken once, or ``None`` where that fails or takes too long."""
    try:
        step = make(axis, n)
        first = _timed(step)
    except Exception as error:
        notes.append(f"{axis} {n}: {name} is left out: {measure.told(error)}")
        return None
    if first > COMPILING:
        notes.append(f"{axis} {n}: the line of {name} ends, since its first step takes {first:.0f} s")
        return None
    return step


def _rounds(steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median seconds of each step."""
    once = {name: min(_timed(step), _timed(step)) for name, step in steps.items()}
    columns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            if sum(columns[name]) < LONGEST:
                columns[name].append(_timed(step, max(1, round(TURN / max(once[name], 1e-6)))))
    return {name: statistics.median(column) for name, column in columns.items()}


def memory(axis: str, name: str, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure the peak memory of one contender, in MB above what was resident before the training was made."""
    from examples.benchmarks import growth_nets

    make, found = growth_nets.contenders()[name], {}
    make(axis, growth_nets.AXES[axis].sizes[0])()  # loads kernels and compilers
    for n in sizes:
        if _foreseen(found, n) > LARGEST:
            break
        measure.give_back()
        before = measure.resident()
        step = make(axis, n)
        step()
        measure.give_back()
        measure.begin_peak()
        for _ in range(2):
            step()
        found[str(n)] = (measure.peak() - before) / 2**20
        del step
    return {"points": {name: found}, "notes": []}


def perform(job: Sequence[Any], cached: str) -> dict[str, Any]:
    """Do a job in its own process; one that fails leaves a note."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.benchmarks.growth", "--job", json.dumps(job)],
        env={**environment(1), "TORCHINDUCTOR_CACHE_DIR": cached, **_given_back(job)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    return {"points": {}, "notes": [f"{job}: its process ended with {done.returncode}: {last}"]}


def _given_back(job: Sequence[Any]) -> dict[str, str]:
    """Return the setting by which freed memory goes back to the system, where memory is measured."""
    return {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"} if job[0] == "memory" else {}


def measured(axes: Sequence[str], names: Sequence[str], cached: str, notes: list[str]) -> dict[str, dict[str, Points]]:
    """Measure all axes: by axis the points of "time" and of "memory"."""
    results: dict[str, dict[str, Points]] = {}
    for axis in axes:
        runs = [perform(["times", axis, names], cached) for _ in range(RUNS)]
        notes += dict.fromkeys(note for run in runs for note in run["notes"])
        found = least([run["points"] for run in runs])
        results[axis] = {"time": found, "memory": {}, **{f"time, run {i}": run["points"] for i, run in enumerate(runs, 1)}}
        for name, points in found.items():
            more = perform(["memory", axis, name, [int(size) for size in points]], cached)
            notes += more["notes"]
            results[axis]["memory"].update(more["points"])
        print(f"{axis}: {', '.join(f'{name} {len(points)} points' for name, points in found.items())}", flush=True)
    return results


def least(runs: Sequence[Points]) -> Points:
    """Return the least of each point that all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    sizes = {name: [n for n in runs[0][name] if all(n in run[name] for run in runs)] for name in names}
    return {name: {n: min(run[name][n] for run in runs) for n in sizes[name]} for name in names}


def merged(before: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return the points of a run, with those of runs before for other axes and contenders."""
    from examples.benchmarks.growth_nets import AXES

    either = [axis for axis in AXES if axis in before or axis in results]
    both = lambda axis, what: {**before.get(axis, {}).get(what, {}), **results.get(axis, {}).get(what, {})}
    return {axis: {what: both(axis, what) for what in QUANTITIES} for axis in either}


def _add(kept: Path, head: str, axis: str, names: Sequence[str], cached: str) -> None:
    """Measure an axis, and add it to the file of points."""
    known = json.loads(kept.read_text()) if kept.exists() else {"results": {}, "notes": []}
    notes: list[str] = []
    results = merged(known["results"], measured([axis], names, cached, notes))
    notes = [*known["notes"], *notes]
    kept.write_text(json.dumps({"head": head, "results": results, "notes": notes}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw the plots, and write the page."""
    from examples.benchmarks import growth_page
    from examples.benchmarks.growth_nets import AXES

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("axes", nargs="*", help=f"of {', '.join(AXES)}; all if none is given")
    parser.add_argument("--contenders", default="funcnet eager,funcnet compiled,torch.nn eager,JAX jit", help="with commas")
    parser.add_argument("--out", type=Path, default=Path("out/growth"), help="folder for the page, the plots and the points")
    parser.add_argument("--redraw", action="store_true", help="write the page from the points in the folder, measuring nothing")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        _work(json.loads(options.job))
        return
    unknown = [axis for axis in options.axes if axis not in AXES]
    if unknown:
        parser.error(f"unknown axis {unknown[0]!r}; there are {', '.join(AXES)}")
    if options.redraw and not (options.out / "points.json").exists():
        parser.error(f"--redraw needs the points of a run, and {options.out / 'points.json'} does not exist")
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "points.json"
    if not options.redraw:
        head, names = growth_page.head(), options.contenders.split(",")
        with tempfile.TemporaryDirectory() as cached:
            for axis in options.axes or list(AXES):  # what is measured is kept, whatever happens to the next axis
                _add(kept, head, axis, names, cached)
    print(growth_page.write(options.out, json.loads(kept.read_text())))


def _work(job: list[Any]) -> None:
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    print(json.dumps({"times": times, "memory": memory}[job[0]](*job[1:])))


if __name__ == "__main__":
    main()
