"""The cost of saving and loading a tree, in time and memory, beside torch.save and safetensors.

Each contender runs in its own process, on one thread, and they take turns. The peak is the rise of the resident memory beyond
the tree itself. Files are read right after they were written, so they come from the system's cache.

    python -m examples.benchmarks.saving --page examples/benchmarks/results/SAVING.md
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.command import file, new_parser, positive, printed, run_command

COUNT, SIZE, ROUNDS = 100, 1_000_000, 5
Call = Callable[[Path, dict[str, Any]], Any]

HEAD = """# Cost of saving and loading

`python -m examples.benchmarks.saving --count {count} --size {size} --rounds {rounds}`, with
`--page examples/benchmarks/results/SAVING.md`, torch {torch}, safetensors {safetensors},
{processor}, one thread.

The tree has {count} tensors of {size} float32 numbers, {mb:.0f} MB. Each contender runs in its own process; they take turns, in
another order each round, and a number is the median of {rounds} rounds. The peak is the rise of the resident memory beyond the
tree. "On the disk" means that the call returns only when the file would survive a power failure (fsync). Files are read from the
system's cache. safetensors maps a file into memory and reads it when the numbers are used, so the second time includes a sum of
all numbers; its peak includes the pages of the file.
"""


def synced(save: Call) -> Call:
    """Return a save function that flushes the file to the disk, as ``fn.save`` does."""

    def saved(path: Path, tree: dict[str, Any]) -> None:
        save(path, tree)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return saved


def ways() -> dict[str, tuple[str, Call]]:
    """Return, by the name of the row, the suffix of a file and the call."""
    import safetensors.torch
    import torch

    import funcnet as fn

    torch_save = lambda path, tree: torch.save(tree, path)
    save_file = lambda path, tree: safetensors.torch.save_file(tree, path)
    return {
        "fn.save": ("fn", fn.save),
        "fn.save, .safetensors": ("safetensors", fn.save),
        "torch.save": ("pt", torch_save),
        "torch.save, fsync": ("pt", synced(torch_save)),
        "safetensors.torch.save_file": ("safetensors", save_file),
        "safetensors.torch.save_file, fsync": ("safetensors", synced(save_file)),
        "fn.save_in_background, the call": ("fn", fn.save_in_background),
        "fn.load": ("fn", lambda path, tree: fn.load(path)),
        "fn.load, .safetensors": ("safetensors", lambda path, tree: fn.load(path)),
        "torch.load": ("pt", lambda path, tree: torch.load(path)),
        "safetensors.torch.load_file": ("safetensors", lambda path, tree: safetensors.torch.load_file(path)),
    }


SAVED = {
    "fn.save": ("yes", "yes", "CRC-32"),
    "fn.save, .safetensors": ("yes", "yes", "CRC-32"),
    "torch.save": ("no", "no", "CRC-32"),
    "torch.save, fsync": ("yes", "no", "CRC-32"),
    "safetensors.torch.save_file": ("no", "yes", "none"),
    "safetensors.torch.save_file, fsync": ("yes", "yes", "none"),
    "fn.save_in_background, the call": ("later", "yes", "CRC-32"),
}
LOADED = {
    "fn.load": ("CRC-32",),
    "fn.load, .safetensors": ("CRC-32",),
    "torch.load": ("none",),
    "safetensors.torch.load_file": ("none",),
}


def memory(what: str) -> int:
    """Return this process's resident memory in bytes: ``VmRSS`` now, or ``VmHWM``, the peak since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def forget_peak() -> None:
    """Reset the peak of the resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(name: str, count: int, size: int, folder: str) -> tuple[float, float, float]:
    """Return the ms of a call, the ms including a sum of all numbers, and the peak bytes beyond the tree, in this process."""
    import torch

    torch.set_num_threads(1)
    end, call = ways()[name]
    small, loads, where = {"w": torch.ones(3)}, name in LOADED, Path(folder)
    save = next(one for form, one in ways().values() if form == end)
    save(where / f"small.{end}", small)
    call(where / f"small.{end}", small)  # load the code
    tree = {} if loads else {f"w{i}": torch.empty(size).normal_() for i in range(count)}
    forget_peak()
    before, began = memory("VmRSS") + loads * 4 * count * size, time.perf_counter()
    result = call(where / f"tree.{end}", tree)
    called = time.perf_counter()
    total = sum([float(x.sum()) for x in result.values()]) if loads else 0.0
    summed = time.perf_counter()
    if math.isnan(total):
        raise ValueError(name)
    return 1e3 * (called - began), 1e3 * (summed - began), memory("VmHWM") - before


def measured(names: Sequence[str], count: int, size: int, rounds: int, folder: str) -> dict[str, list[float]]:
    """Return the medians of each contender's numbers."""
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in random.Random(turn).sample([*names], len(names)):
            command = [sys.executable, "-m", "examples.benchmarks.saving", "--one", json.dumps([name, count, size, folder])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def tables(count: int, size: int, rounds: int, folder: str) -> Iterator[str]:
    """Yield the lines of both tables."""
    yield "\n| save | on the disk | in one piece | checked | ms | peak, MB |"
    yield "|---|---|---|---|--:|--:|"
    for name, (ms, _, top) in measured([*SAVED], count, size, rounds, folder).items():
        yield f"| {name} | {' | '.join(SAVED[name])} | {ms:.0f} | {top / 1e6:.0f} |"
    yield "\n| load | checked | ms | ms with a sum | peak, MB |"
    yield "|---|---|--:|--:|--:|"
    for name, (ms, summed, top) in measured([*LOADED], count, size, rounds, folder).items():
        yield f"| {name} | {LOADED[name][0]} | {ms:.0f} | {summed:.0f} | {top / 1e6:.0f} |"


def head(count: int, size: int, rounds: int) -> str:
    """Return the head of the page."""
    import safetensors
    import torch

    from examples.reports.__main__ import processor

    versions = {"torch": torch.__version__, "safetensors": safetensors.__version__, "processor": processor()}
    return HEAD.format(count=count, size=size, rounds=rounds, mb=4e-6 * count * size, **versions)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both tables, and print or write the page."""
    parser = new_parser("saving", __doc__)
    parser.add_argument("--count", type=positive, default=COUNT, help="tensors")
    parser.add_argument("--size", type=positive, default=SIZE, help="numbers per tensor")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of rounds, with one turn per contender")
    parser.add_argument("--page", type=file, help="file to write the page to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    lines = [head(options.count, options.size, options.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        lines += printed(tables(options.count, options.size, options.rounds, folder))
    if options.page:
        options.page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
