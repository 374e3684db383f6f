"""The cost of composition: per-example gradients, ensembles and depth, beside loops, ``torch.func`` and ``serial``.

python -m examples.benchmarks.composition --page examples/benchmarks/results/COMPOSITION.md
"""

from collections.abc import Iterator, Sequence

import torch

from examples.benchmarks import depth, ensembles, per_example, turns
from examples.benchmarks.command import file, new_parser, positive, printed, run_command
from examples.reports.__main__ import processor

ROUNDS = 30

HEAD = """# Cost of composition

`python -m examples.benchmarks.composition --rounds {rounds} --page examples/benchmarks/results/COMPOSITION.md`,
torch {torch}, {processor}, one thread, float32.

All contenders of a row take turns in one process, in another order each round. A number is the median of {rounds} rounds, in ms
of the process's CPU time, with the garbage collector off.
"""

PER_EXAMPLE = """
## Per-example gradients

`loop` calls `value_and_grads` for each row and stacks the gradients. `vmap(grad)` uses `torch.func` on the same net. `norms of
stored` computes the norms of the results of `per_example_grads`; `per_example_norms` does not store gradients. `batch` is the
single gradient of the whole batch. The last three columns are quotients of times: above 1, funcnet's function is faster.

If a gradient costs more to compute than to write, as for a convolution of many channels, all ways take about the same time: the
products are the same. If it is large, as for a wide Linear, its memory dominates: the system takes 1 to 3 µs here for 4 KB of new
memory. `per_example_grads` asks for huge pages, and `per_example_norms` needs no memory for gradients.
"""

ENSEMBLES = """
## Ensembles of {members}

`torch.func` is `vmap` of `functional_call`, or of `grad_and_value` of its loss. The last columns are funcnet's time as a fraction
of torch.func's.
"""

DEPTH = """
## `repeat` and `serial` of {blocks} residual blocks, in eager mode

A block is `residual(serial(LayerNorm(n), Linear(n, 2n), GELU(), Linear(2n, n)))`. The last columns are the time of `repeat` as a
fraction of `serial`'s. `repeat` stacks the gradients of its copies, while `serial` copies nothing; its optimizer updates 6 leaves
instead of {leaves}.
"""


def page(rounds: int) -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD.format(torch=torch.__version__, processor=processor(), rounds=rounds)
    yield PER_EXAMPLE
    yield from turns.table(per_example.cases(), per_example.QUOTIENTS, rounds)
    yield ENSEMBLES.format(members=ensembles.MEMBERS)
    yield from turns.table(ensembles.cases(), ensembles.QUOTIENTS, rounds)
    yield DEPTH.format(blocks=depth.BLOCKS, leaves=6 * depth.BLOCKS)
    yield from turns.table(depth.cases(), depth.QUOTIENTS, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all tables, and print or write the page."""
    parser = new_parser("composition", __doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of rounds, with one turn per contender")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    lines = printed(page(options.rounds))
    if options.page:
        options.page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
