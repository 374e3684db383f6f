"""The time that ``fit`` adds to a step of the four-line loop that it replaces, on scikit-learn's digits.

Both train the same net with the same keys on the same batches, and end with the same params. They take turns in one process.

    python -m examples.benchmarks.fitting --page examples/benchmarks/results/FITTING.md
"""

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter, process_time
from typing import Any

import torch
from attrs import frozen
from torch.utils.data import DataLoader, TensorDataset

import funcnet as fn
from examples import common
from examples.benchmarks.command import file, new_parser, positive, printed, run_command
from examples.reports.__main__ import processor

ROUNDS, EPOCHS, BATCH, ROWS, TINY_STEPS = 10, 8, 64, 1792, 1000
CLOCKS = {"CPU": process_time, "wall": perf_counter}

HEAD = """# Time that `fit` adds to a step

`python -m examples.benchmarks.fitting --rounds {rounds} --page examples/benchmarks/results/FITTING.md`,
torch {torch}, {processor}, one thread.

`fit` beside this four-line loop, which has the same net, keys and batches, and ends with the same params:

    with torch.inference_mode():
        for epoch in range(epochs):
            for i, (x, target) in enumerate(batches(epoch)):
                params, state, value = step(params, state, x, target, fn.fold_in(keys[epoch], i))

A turn is a training of {epochs} epochs of {steps} batches of {batch} digits, with dropout in a convolutional net and a donated
AdamW. The whole call of `fit` is timed, including copies of params, the history and the check for non-finite values. The workers
of a DataLoader persist from turn to turn; their batches come in another order in `fit`, which draws one more seed. Without
workers `fit` fetches batches outside inference mode, since a dataset can keep its tensors; this takes 2 % of a step. The step of
the last two rows does next to nothing, so that they show the cost of `fit` in µs. Contenders take turns in one process, in
another order each round.

Times are µs per step, medians of {rounds} rounds: the CPU time of the process without its workers, or wall time. The first
quotient is the median of the rounds' quotients, the second the quotient of the smallest times.
"""


@frozen
class Case:
    """One training: ``data`` for ``fit``, and ``batches``, a function of the epoch and a key, for the loop."""

    net: fn.Layer
    loss: fn.Loss
    data: Any
    batches: Callable[[int, Any], Iterable[Any]]
    steps: int
    batch_size: int | None = None
    epochs: int = EPOCHS


def digits_net() -> fn.Layer:
    """Return a small convolutional net with dropout."""
    convs = fn.Conv2d(1, 16, 3, padding="same"), fn.ReLU(), fn.MaxPool2d(2), fn.Conv2d(16, 32, 3, padding="same"), fn.ReLU()
    return fn.serial(*convs, fn.MaxPool2d(2), fn.Flatten(), fn.Dropout(0.3), fn.Linear(32 * 2 * 2, 10))


def digits(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return digits and labels, their number rounded down to whole batches."""
    images, labels = (torch.cat(parts) for parts in zip(*common.digits(fn.key(0)), strict=True))
    return images[:rows], labels[:rows]


def in_order_of_fit(data: tuple[torch.Tensor, torch.Tensor], batch_size: int) -> Callable[[int, Any], Iterator[Any]]:
    """Return the function that makes an epoch's batches from tensors in the order of ``fit``."""
    x, target = data

    def batches(epoch: int, order: Any) -> Iterator[Any]:
        for rows in fn.random.permutation(fn.fold_in(order, epoch), len(x)).split(batch_size):
            yield x[rows], target[rows]

    return batches


def loaded(workers: int, rows: int = ROWS) -> Case:
    """Return the training with a DataLoader."""
    loader = DataLoader(
        TensorDataset(*digits(rows)),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
    )
    return Case(digits_net(), fn.CrossEntropy(), loader, lambda epoch, order: loader, len(loader))


def from_tensors(rows: int = ROWS) -> Case:
    """Return the training with two tensors."""
    data = digits(rows)
    return Case(digits_net(), fn.CrossEntropy(), data, in_order_of_fit(data, BATCH), -(-rows // BATCH), BATCH)


def tiny(listed: bool, steps: int = TINY_STEPS) -> Case:
    """Return a training whose steps do almost nothing, with a list of batches or two tensors."""
    data, net = (torch.ones(steps, 1), torch.ones(steps, 1)), fn.Linear(1, 1)
    if not listed:
        return Case(net, fn.MSE(), data, in_order_of_fit(data, 1), steps, 1, epochs=1)
    batches = [*zip(data[0].split(1), data[1].split(1), strict=True)]
    return Case(net, fn.MSE(), batches, lambda epoch, order: batches, steps, epochs=1)


def cases() -> Iterator[tuple[str, Case]]:
    """Yield the rows of the table."""
    yield "DataLoader, 2 workers", loaded(2)
    yield "DataLoader, no workers", loaded(0)
    yield "tensors", from_tensors()
    yield "list of batches, tiny step", tiny(listed=True)
    yield "tensors, tiny step", tiny(listed=False)


def contenders(case: Case, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Return the loop and ``fit`` as functions that train and return the params."""
    first, order, noise = fn.split(fn.key(seed), 3)  # as fit splits its key
    params, opt = case.net.init(first), fn.AdamW(lr=1e-3)
    step = fn.train_step(case.net, case.loss, opt.donate())

    def loop() -> Any:
        own, state = fn.tree.map(torch.clone, params), opt.init(params)
        with torch.inference_mode():
            for epoch in range(case.epochs):
                keys = fn.fold_in(noise, epoch)
                for i, (x, target) in enumerate(case.batches(epoch, order)):
                    own, state, _ = step(own, state, x, target, fn.fold_in(keys, i) if case.net.stochastic else None)
        return own

    def fit() -> Any:
        how: dict[str, Any] = {"batch_size": case.batch_size, "params": params, "progress": False}
        return fn.fit(case.net, case.loss, opt, case.data, epochs=case.epochs, key=seed, **how).params

    return {"loop": _from_the_start(case.data, loop), "fit": _from_the_start(case.data, fit)}


def _from_the_start(data: Any, train: Callable[[], Any]) -> Callable[[], Any]:
    """Return the training with a DataLoader whose order restarts."""

    def run() -> Any:
        if isinstance(data, DataLoader) and data.generator is not None:
            data.generator.manual_seed(0)
        return train()

    return run


def measured(case: Case, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the µs per step of each contender in each round, by clock; the first round does not count."""
    ways, scale = contenders(case), 1e6 / (case.epochs * case.steps)
    times: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in ways} for clock in CLOCKS}
    was_on, threads = gc.isenabled(), torch.get_num_threads()
    torch.set_num_threads(1)
    fn.kernels.retain_freed_memory()  # fit calls it, and it affects the loop too
    try:
        for turn in range(rounds + 1):
            for name in random.Random(turn).sample([*ways], len(ways)):
                gc.collect()
                gc.disable()
                began = {clock: read() for clock, read in CLOCKS.items()}
                ways[name]()
                for clock, read in CLOCKS.items():
                    times[clock][name].append((read() - began[clock]) * scale)
    finally:
        torch.set_num_threads(threads)
        if was_on:
            gc.enable()
    return {clock: {name: column[1:] for name, column in one.items()} for clock, one in times.items()}


def table(cases: Iterable[tuple[str, Case]], rounds: int) -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| data | clock | loop, µs | fit, µs | fit / loop | of the least times |"
    yield "|---|---|--:|--:|--:|--:|"
    for name, case in cases:
        for clock, times in measured(case, rounds).items():
            loop, fit = times["loop"], times["fit"]
            quotient = statistics.median([b / a for a, b in zip(loop, fit, strict=True)])
            middle = f"{statistics.median(loop):.0f} | {statistics.median(fit):.0f}"
            yield f"| {name} | {clock} | {middle} | {quotient:.3f} | {min(fit) / min(loop):.3f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows, and print the table or write the page."""
    parser = new_parser("fitting", __doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of rounds, with one turn per contender")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    lines = printed(table(cases(), options.rounds))
    if options.page:
        words = {"rounds": options.rounds, "epochs": EPOCHS, "steps": ROWS // BATCH, "batch": BATCH}
        head = HEAD.format(torch=torch.__version__, processor=processor(), **words)
        options.page.write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    run_command(main)
