"""How the cost of a training step grows: time and peak memory by width, depth, batch and sequence length.

funcnet pure, donated and compiled beside torch.nn and JAX, on one thread in float32. Times are CPU time: the median of
rounds in which contenders take turns, in two processes for each axis; memory is measured twice, in a process for each contender.
A line ends before a point that would take too long or too much memory. The page has a table of exponents, the largest ratio
of each pair of contenders, and plots.

    python -m examples.benchmarks.growth --out examples/benchmarks/results/growth
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.command import folder, new_parser, run_command, some_of
from examples.benchmarks.growth_jobs import RUNS, perform, work
from examples.benchmarks.growth_nets import AXES, NAMES, SKIPPED

NAME = "python -m examples.benchmarks.growth"
QUANTITIES = ("time", "memory", *[f"{what}, run {i}" for what in ("time", "memory") for i in range(1, RUNS + 1)])

Points = dict[str, dict[str, float]]
"""By contender and size, which JSON needs as a string: µs per step, or MB."""

Found = dict[str, Points]
"""The points of an axis by quantity, one of ``QUANTITIES``."""


def measured(axis: str, names: Sequence[str], cached: str, notes: list[str]) -> Iterator[Found]:
    """Measure an axis, and yield the results after each process: first memory, then times."""
    names = [name for name in names if (name, axis) not in SKIPPED]
    runs: dict[str, list[Points]] = {what: [{} for _ in range(RUNS)] for what in ("time", "memory")}
    for name in names:
        answer = perform(["memory", axis, name], cached)
        notes += answer["notes"]
        for run, points in zip(runs["memory"], answer["runs"], strict=True):
            run.update({name: points} if points else {})
        yield _quantities(runs)
    for run in runs["time"]:
        answer = perform(["times", axis, names], cached)
        notes += [note for note in answer["notes"] if note not in notes]
        run.update(answer["points"])
        yield _quantities(runs)


def _quantities(runs: dict[str, list[Points]]) -> Found:
    """Return the points of each run that has any, and the smallest values over the runs."""
    found: Found = {}
    for what, some in runs.items():
        having = [run for run in some if run]
        found[what] = least(having) if having else {}
        found.update({f"{what}, run {i}": run for i, run in enumerate(having, 1)})
    return found


def least(runs: Sequence[Points]) -> Points:
    """Return the smallest value of each point that all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    sizes = {name: [n for n in runs[0][name] if all(n in run[name] for run in runs)] for name in names}
    return {name: {n: min(run[name][n] for run in runs) for n in sizes[name]} for name in names}


def merged(before: dict[str, Found], results: dict[str, Found]) -> dict[str, Found]:
    """Return the points of a run, with those of earlier runs for other axes and contenders."""
    either = [axis for axis in AXES if axis in before or axis in results]
    both = lambda axis, what: {**before.get(axis, {}).get(what, {}), **results.get(axis, {}).get(what, {})}
    return {axis: {what: both(axis, what) for what in QUANTITIES} for axis in either}


def _measure(kept: Path, head: str, axes: Sequence[str], names: Sequence[str]) -> bool:
    """Measure axes, and save the results after each process; return ``False`` after Ctrl-C."""
    known = json.loads(kept.read_text()) if kept.exists() else {"results": {}, "notes": []}
    before, notes = known["results"], [note for note in known["notes"] if note.split(":", maxsplit=1)[0] not in axes]
    try:
        with tempfile.TemporaryDirectory() as cached:
            for axis in axes:
                results: Any = before
                found: dict[str, Any] = {"time": {}}
                for found in measured(axis, names, cached, notes):
                    results = merged(before, {axis: found})
                    kept.write_text(json.dumps({"head": head, "results": results, "notes": notes}, indent=1) + "\n")
                before = results
                print(
                    f"{axis}: {', '.join(f'{name} {len(points)} points' for name, points in found['time'].items())}", flush=True
                )
    except KeyboardInterrupt:
        return False
    return True


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser("growth", __doc__)
    parser.add_argument("axes", nargs="*", metavar="axis", help=f"of {', '.join(AXES)}; all by default")
    about = f"of {', '.join(NAMES)}, separated by commas; all by default"
    parser.add_argument("--contenders", type=some_of("contender", NAMES), default=[*NAMES], help=about)
    parser.add_argument("--out", type=folder, default=Path("out/growth"), help="folder for the page, the plots and the points")
    parser.add_argument("--redraw", action="store_true", help="write the page from the points in the folder, without measuring")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.kept = options.out / "points.json"
    unknown = [axis for axis in options.axes if axis not in AXES]
    if unknown:
        parser.error(f"argument axis: unknown axis {unknown[0]!r}; choose from {', '.join(AXES)}")
    if options.redraw and not options.kept.exists():
        parser.error(f"--redraw needs the points of a run, and {options.kept} does not exist")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw the plots, and write the page."""
    from examples.benchmarks import growth_page

    options = _read(arguments)
    if options.job:
        work(json.loads(options.job))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    whole = True
    if not options.redraw:
        command = shlex.join([*NAME.split(), *(sys.argv[1:] if arguments is None else arguments)])
        whole = _measure(options.kept, growth_page.head(command), options.axes or [*AXES], options.contenders)
    if options.kept.exists():
        print(growth_page.write(options.out, json.loads(options.kept.read_text())))
    if not whole:
        sys.exit(f"Stopped by Ctrl-C; the points of the processes that had ended are in {options.kept}.")


if __name__ == "__main__":
    run_command(main)
