"""The time to compile a whole train step by depth, for ``serial`` and ``repeat`` of residual blocks.

Each row is measured in its own process, on one thread, with an empty Inductor cache, after a first compilation has precompiled
the headers. Times are CPU time, including the C++ compiler's, so that other work on the machine matters little.

    python -m examples.benchmarks.compile_time --page examples/benchmarks/results/COMPILE_TIME.md
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import SUPPRESS
from collections.abc import Iterator
from typing import Any

from examples.benchmarks.command import file, new_parser, positive, printed, run_command

NETS = {
    "serial": (5, 10, 20, 40),
    "repeat": (10, 100),
    "repeat of remat": (10, 100),
}


def made(name: str, n: int, size: int, rows: int) -> tuple[Any, tuple[Any, ...]]:
    """Return a compiled step of funcnet and its arguments."""
    import torch

    import funcnet as fn

    inner = fn.serial(fn.LayerNorm(size), fn.Linear(size, 4 * size), fn.GELU(), fn.Linear(4 * size, size))
    block = fn.residual(inner)
    nets = {
        "serial": lambda: fn.serial(*[block] * n),
        "repeat": lambda: fn.repeat(block, n),
        "repeat of remat": lambda: fn.repeat(fn.remat(block), n),
    }
    net, opt = nets[name](), fn.SGD(0.1)
    params = net.init(0)
    return fn.compile(fn.train_step(net, fn.MSE(), opt)), (
        params,
        opt.init(params),
        torch.randn(rows, size),
        torch.randn(rows, size),
    )


def seconds() -> tuple[float, float]:
    """Return the CPU time so far of this process and of its finished child processes."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def measure(name: str, n: int, size: int, rows: int) -> tuple[float, float, float]:
    """Return the seconds of the first step in this process and in compilers, and the ms of a later step."""
    import torch

    torch.set_num_threads(1)
    torch.compile(torch.sin, options={"cpp_wrapper": True})(torch.ones(2))
    step, arguments = made(name, n, size, rows)
    before = seconds()
    step(*arguments)
    after = seconds()
    times = []
    for _ in range(5):
        began = time.thread_time()
        step(*arguments)
        times.append(1e3 * (time.thread_time() - began))
    return after[0] - before[0], after[1] - before[1], min(times)


def _in_a_process(one: list[Any]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        kept = {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "examples.benchmarks.compile_time", "--one", json.dumps(one)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **kept})
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(size: int, rows: int) -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| net | blocks | Python, s | C++ compiler, s | both, s | s a block more | step, ms |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, depths in NETS.items():
        last: tuple[int, float] | None = None
        for n in depths:
            own, compiler, ms = _in_a_process([name, n, size, rows])
            slope = "" if last is None else f"{round((own + compiler - last[1]) / (n - last[0]), 2) + 0.0:.2f}"  # no -0.00
            last = n, own + compiler
            yield f"| {name} | {n} | {own:.1f} | {compiler:.1f} | {own + compiler:.1f} | {slope} | {ms:.1f} |"


HEAD = """# Time to compile a train step, by depth

`python -m examples.benchmarks.compile_time --page examples/benchmarks/results/COMPILE_TIME.md`,
torch {torch}, {machine}, one thread, float32.

A block is `residual(serial(LayerNorm({size}), Linear({size}, {wide}), GELU(), Linear({wide}, {size})))` on {rows} rows, and the
step is `compile(train_step(net, MSE(), SGD(0.1)))`. Times are seconds of CPU time of the first step, with an empty cache: of
Dynamo and Inductor in Python, and of the C++ compiler. The last column is the CPU time of a later step, the fastest of five.

"""


def main(arguments: list[str] | None = None) -> None:
    """Measure all rows, and print the table or write the page."""
    parser = new_parser("compile_time", __doc__)
    parser.add_argument("--size", type=positive, default=64, help="number of features")
    parser.add_argument("--rows", type=positive, default=32, help="number of rows of x")
    parser.add_argument("--page", type=file, help="file to write the page to")
    parser.add_argument("--one", help=SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    lines = printed(table(options.size, options.rows))
    if options.page:
        import torch

        from examples.reports.__main__ import processor

        words = {"size": options.size, "wide": 4 * options.size, "rows": options.rows}
        options.page.write_text(HEAD.format(torch=torch.__version__, machine=processor(), **words) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
