"""The cost of a training step: funcnet beside torch.nn, torch.compile, JAX and thinc, on eleven workloads in float32.

Each workload and number of threads is measured in its own process, where all contenders take turns; peak memory is measured in
a process for each contender. A peer that is not installed, or a contender that cannot run here, is left out with a note. The
page and the charts go to the folder --out. After Ctrl-C the page has the results so far.

    pip install -c constraints.txt -e ".[bench]"
    python -m examples.benchmarks disk_mlp lenet --peers nn,jax --threads 1,2 --rounds 30 --json times.json
    python -m examples.benchmarks --quick --threads 1,2
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from examples.benchmarks import goals, report, worker
from examples.benchmarks.command import add_names, counts, duration, file, folder, new_parser, positive, run_command, some_of
from examples.benchmarks.peers import funcnet
from examples.benchmarks.workloads import WORKLOADS
from examples.reports.__main__ import processor, version
from funcnet.kernels import this_processor

PACKAGES = ("torch", "jax", "jaxlib", "equinox", "optax", "thinc", "numpy")


QUICK = {"peers": ["nn", "jax"], "rounds": 6, "turn": 0.05, "memory": False}


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    new = new_parser("", __doc__)
    add_names(new, "workload", tuple(WORKLOADS))
    peers, ways = tuple(worker.PEERS), funcnet.WAYS
    new.add_argument("--peers", type=some_of("peer", peers), help=f"of {','.join(peers)}; all by default")
    new.add_argument("--funcnet", type=some_of("way", ways), default=list(ways), help=f"of {','.join(ways)}; all by default")
    new.add_argument("--threads", type=counts, default=[1], help="comma-separated numbers of threads, such as 1,2 (1)")
    new.add_argument("--quick", action="store_true", help="15 minutes: by default 6 rounds of 0.05 s, peers nn,jax, no memory")
    new.add_argument("--rounds", type=positive, help="number of turns of each contender (30)")
    new.add_argument("--turn", type=duration, help="approximate seconds per turn (0.1)")
    new.add_argument("--memory", action=argparse.BooleanOptionalAction, help="measure peak memory too (yes)")
    new.add_argument("--json", type=file, help="file for all measurements")
    new.add_argument("--out", type=folder, default="out/benchmarks", help="folder for the page and the charts")
    options = new.parse_args(arguments)
    for name, default in (QUICK if options.quick else {"peers": list(peers), "rounds": 30, "turn": 0.1, "memory": True}).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    return options


def measured(options: argparse.Namespace, results: list[report.Result], notes: list[str]) -> None:
    """Measure, and add results and notes as they come."""
    with tqdm(total=len(options.threads) * len(options.workloads), unit="workload", file=sys.stderr) as bar:
        for threads in options.threads:
            with tempfile.TemporaryDirectory() as cache:  # initially empty, so that first calls compile
                _measure_all(options, _performer(bar, notes, threads, cache), threads, results, bar)


def _measure_all(options: argparse.Namespace, do: Callable[..., Any], threads: int, results: list[Any], bar: Any) -> None:
    """Measure all workloads with a number of threads."""
    common = {"funcnet": options.funcnet, "peers": options.peers, "turn": options.turn, "rounds": options.rounds}
    gemm = do("GEMM peak", {"task": "machine", "turn": options.turn}).get("gemm", {})
    for name in options.workloads:
        place = {"workload": name, "threads": threads, "cores": len(worker.cores(threads)), "gemm": gemm}
        found = do(name, {"task": "time", "workload": name, **common})
        if "rows" in found:
            results.append({**place, "rows": found["rows"], "flops": found["flops"]})
            for row in found["rows"] if options.memory else []:
                job = {"task": "memory", "workload": name, "label": row["label"], **common}
                row["memory"] = do(f"{name}, memory of {row['label']}", job).get("memory")
        bar.update()


def _performer(bar: Any, notes: list[str], threads: int, cache: str) -> Callable[[str, worker.Job], dict[str, Any]]:
    """Return a function that announces a task, does it, and adds its notes."""

    def do(what: str, job: worker.Job) -> dict[str, Any]:
        bar.set_postfix_str(f"{what}, {threads} thread{'s' * (threads > 1)}")
        found = worker.perform({**job, "threads": threads, "cache": cache})
        for note in found["notes"]:
            notes.append(f"{job.get('workload', 'machine')}: {note}")
            bar.write(notes[-1], file=sys.stderr)
        return found

    return do


def versions() -> Iterator[tuple[str, str]]:
    """Yield the version of each installed package."""
    yield from (("Python", platform.python_version()), ("funcnet", version()))
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def facts(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the command, the versions and the machine."""
    return {
        "command": shlex.join(["python", "-m", "examples.benchmarks", *arguments]),
        "versions": dict(versions()),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def head(known: dict[str, Any], results: Sequence[report.Result]) -> str:
    """Return the head of the page."""
    peaks = {report.threads_of(r): ", ".join(f"{name} {peak:.0f}" for name, peak in r["gemm"].items()) for r in results}
    lines = ["# Cost of a training step", "", f"    {known['command']}", ""]
    lines += ["- " + ", ".join(f"{name} {number}" for name, number in known["versions"].items())]
    lines += [f"- {known['processor']}, {known['capability']}, {known['date']}"]
    lines += [f"- products of 1024×1024 in GFLOP/s, {threads}: {peak}" for threads, peak in peaks.items()]
    return "\n".join(lines)


def charts(folder: Path, results: Sequence[report.Result]) -> list[str]:
    """Draw a chart for each number of threads with torch.nn's results, and return the names of the files."""
    names = []
    for threads in dict.fromkeys(result["threads"] for result in results):
        same = [r for r in results if r["threads"] == threads and report.best(r, "torch.nn eager")]
        if same:
            names.append(f"chart_{threads}.png")
            report.chart(same, folder / names[-1])
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, and save it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = options_of(arguments)
    results: list[report.Result] = []
    notes: list[str] = []
    try:
        measured(options, results, notes)
    except KeyboardInterrupt:
        notes.append(
            f"stopped by Ctrl-C; the page has {len(results)} of {len(options.threads) * len(options.workloads)} workloads"
        )
    known = facts(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    judged = report.owed(results, this_processor().maker, goals.before())
    text = report.page(head(known, results), results, judged, notes, charts(options.out, results))
    (options.out / "BENCHMARKS.md").write_text(text)
    if options.json:
        options.json.write_text(json.dumps({**known, "results": results, "notes": notes}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    run_command(main)
