"""The cost of single kernels: funcnet's beside torch.nn's and the alternatives, at the sizes of the workloads.

The page is FOLDER/<maker>.md, with a table for each family. A time is the fastest of many turns, in µs of CPU time per call, on
one thread.

    python -m examples.benchmarks.kernels --family conv,pool --out examples/benchmarks/results/kernels
"""

import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from examples.benchmarks.command import duration, folder, new_parser, positive, printed, run_command, some_of
from examples.benchmarks.kernels.rows import Row, table
from examples.reports.__main__ import processor
from funcnet.kernels import retain_freed_memory
from funcnet.kernels.processor import this_processor

FAMILIES = {
    "conv": "Convolutions",
    "pool": "Pooling",
    "norm": "Batch norm, ReLU",
    "product": "Linear maps",
    "attention": "Attention",
    "recurrent": "Recurrent layers",
    "activation": "Activations, layer norm, softmax",
}
"""The title of each family, whose rows are ``ROWS`` in the module of its name."""

HEAD = """# Kernels on {processor}

`{command}`,
torch {torch}, {capability}, one thread, float32 unless a row says otherwise.

funcnet's kernel beside torch.nn's, under autograd, and beside the alternatives. The first column is the kernel that funcnet
chooses on this processor. A time is the fastest of {rounds} turns, in µs of CPU time per call. A call frees its results, and the
process keeps the memory, unless a column says otherwise.
"""


def rows_of(family: str) -> list[Row]:
    """Return the rows of a family."""
    rows: list[Row] = importlib.import_module(f"examples.benchmarks.kernels.{family}").ROWS
    return rows


def page(command: Sequence[str], families: Sequence[str], rounds: int, turn: float) -> Iterator[str]:
    """Yield the lines of the page."""
    words: dict[str, Any] = {
        "processor": processor(),
        "command": shlex.join(["python", "-m", "examples.benchmarks.kernels", *command]),
    }
    words |= {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), "rounds": rounds}
    yield HEAD.format(**words)
    for family in families:
        yield f"## {FAMILIES[family]}\n"
        yield from table(rows_of(family), rounds, turn)
        yield ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the page, and save it under the processor's maker."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser, names = new_parser("kernels", __doc__), tuple(FAMILIES)
    about = f"comma-separated families, of {', '.join(names)}; all by default"
    parser.add_argument("--family", type=some_of("family", names), default=list(names), help=about)
    parser.add_argument("--rounds", type=positive, default=20, help="number of turns of each contender")
    parser.add_argument("--turn", type=duration, default=0.005, help="approximate seconds per turn")
    parser.add_argument("--out", type=folder, default="out/kernels", help="folder of the page")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    retain_freed_memory()
    lines = printed(page(arguments, options.family, options.rounds, options.turn))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{this_processor().maker}.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    run_command(main)
