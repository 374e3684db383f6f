"""The import times of funcnet and of torch, measured in turns in many fresh processes.

Times are the median and the smallest CPU time in ms, including the start of the interpreter. Bytecode is cached, as for an
installed package: the first round, which writes it, does not count.

    python -m examples.benchmarks.import_time --page examples/benchmarks/results/IMPORT_TIME.md
"""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from examples.benchmarks.command import file, new_parser, positive, run_command

STEP = "train_step(fn.serial(fn.Linear(2, 25), fn.Tanh(), fn.Linear(25, 2)), fn.MSE(), fn.SGD(0.1))"

CODE = {
    "torch": "import torch",
    "torch, attrs, numpy": "import torch, attrs, numpy",
    "funcnet": "import torch, funcnet",
    "funcnet, a train step": f"import torch, funcnet as fn; fn.{STEP}",
    "funcnet, fit and compile": "import torch, funcnet as fn; fn.fit, fn.compile",
    "funcnet, all names": "import torch, funcnet; vars(funcnet)",
}
"""The program of the process, by row."""

GOAL = 150
"""The allowed difference in ms between the imports of funcnet and of torch."""

HEAD = """# Import time

`{command}`,
Python {python}, torch {torch}, {machine}.

CPU time of a fresh process in ms, in {rounds} rounds; bytecode is cached. Goal: `import funcnet` takes at most {goal} ms more
than `import torch`. Names of funcnet are imported when they are first used, so the time depends on the program.

"""


def milliseconds(program: str, cached: str) -> float:
    """Return the CPU time of a process that runs a program."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, env={**environment, "PYTHONPYCACHEPREFIX": cached})
    after = os.times()
    return 1e3 * (after.children_user + after.children_system - before.children_user - before.children_system)


def measured(rounds: int) -> dict[str, list[float]]:
    """Return the times of each row, one per round."""
    times: dict[str, list[float]] = {name: [] for name in CODE}
    with tempfile.TemporaryDirectory() as cached:
        for _ in range(rounds + 1):
            for name, program in CODE.items():
                times[name].append(milliseconds(program, cached))
    return {name: column[1:] for name, column in times.items()}


def table(times: dict[str, list[float]]) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield "| import | median, ms | least, ms | median more than torch | least more than torch |"
    yield "|---|--:|--:|--:|--:|"
    base = times["torch"]
    for name, column in times.items():
        middle, least = statistics.median(column), min(column)
        more = f"{middle - statistics.median(base):.0f} | {least - min(base):.0f}"
        yield f"| {name} | {middle:.0f} | {least:.0f} | {more} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table or write the page."""
    parser = new_parser("import_time", __doc__)
    parser.add_argument("--rounds", type=positive, default=15, help="number of processes of each kind")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    text = "\n".join(table(measured(options.rounds)))
    print(text)
    if options.page:
        import platform

        import torch

        from examples.reports.__main__ import processor

        command = shlex.join(
            ["python", "-m", "examples.benchmarks.import_time", *(sys.argv[1:] if arguments is None else arguments)]
        )
        words = {"command": command, "python": platform.python_version(), "torch": torch.__version__, "machine": processor()}
        options.page.write_text(HEAD.format(**words, rounds=options.rounds, goal=GOAL) + text + "\n")


if __name__ == "__main__":
    run_command(main)
