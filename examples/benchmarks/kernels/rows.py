"""Rows of the kernels' tables: a name, and contenders measured in turns.

To add a row, write a function that makes the tensors and returns the contenders, and name it in its family's ``ROWS``.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from time import process_time
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

import funcnet as fn
from examples.benchmarks.measure import calls_of
from funcnet.kernels.choices import CHOICES, forced

Way = Callable[[], Any]
Ways = dict[str, Way]
"""Contenders by column: "funcnet", "torch.nn", then the alternatives."""

_MMAP_THRESHOLD = -3  # from glibc's malloc.h


@frozen
class Row:
    """One kernel at one size."""

    name: str
    make: Callable[[], Ways]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Draw normal noise."""
    return fn.random.normal(seed, shape)


def through_autograd(
    f: Callable[..., Tensor], *inputs: Tensor, gy: Tensor | None = None
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return autograd's forward and backward pass of ``f``, with the gradients of all inputs that require one."""
    wanted = [x for x in inputs if x.requires_grad]
    with torch.enable_grad():
        y = f(*inputs)
    gy = torch.ones_like(y) if gy is None else gy

    return lambda: f(*inputs), lambda: torch.autograd.grad(y, wanted, gy, retain_graph=True)


def leaf(x: Tensor) -> Tensor:
    """Return a copy of x that requires a gradient."""
    return x.detach().clone(memory_format=torch.preserve_format).requires_grad_()


@contextmanager
def fresh_memory(least: int = 1 << 16) -> Iterator[None]:
    """Make glibc take blocks of at least this size from the system, and return them when freed."""
    option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if option is not None:
        option(_MMAP_THRESHOLD, least)
    try:
        yield
    finally:
        if option is not None:
            option(_MMAP_THRESHOLD, 32 << 20)


def fresh(f: Callable[[], Any]) -> Callable[[], Any]:
    """Return f with results and temporaries in fresh memory, as in a process that keeps no freed memory."""

    def call() -> None:
        with fresh_memory():
            f()

    return call


@frozen
class Forced:
    """A function with an option of a choice, forced for a whole turn, as forcing takes longer than small kernels."""

    f: Callable[[], Any]
    name: str
    option: str

    def __call__(self) -> Any:
        """Call the function."""
        return self.f()


def with_options(name: str, f: Callable[[], Any]) -> Ways:
    """Return f with each option of a choice."""
    return {f"by {option}": Forced(f, name, option) for option in CHOICES[name].options}


def quickest(ways: Ways, rounds: int, turn: float) -> dict[str, float]:
    """Return the µs per call of each contender's fastest turn.

    A turn repeats the call for about ``turn`` seconds of CPU time. Other work on the machine can only slow a turn down, so
    the fastest of many is reproducible. torch.nn's contenders run with autograd, all others in inference mode.
    """
    runs = {name: _repeated(f, autograd=name.startswith("torch.nn")) for name, f in ways.items()}
    counts = {name: calls_of(run, turn) for name, run in runs.items()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            began = process_time()
            run(counts[name])
            best[name] = min(best[name], 1e6 * (process_time() - began) / counts[name])
    return best


def _repeated(f: Callable[[], Any], autograd: bool) -> Callable[[int], None]:
    def run(calls: int) -> None:
        option = forced(f.name, f.option) if isinstance(f, Forced) else nullcontext()
        with torch.inference_mode(not autograd), option:
            for _ in range(calls):
                f()

    return run


def table(rows: Sequence[Row], rounds: int, turn: float) -> Iterator[str]:
    """Yield the lines of a family's table: a row for each kernel, a column for each contender.

    Ctrl-C is raised again after the lines measured before it.
    """
    found, stopped = {}, None
    try:
        for row in rows:
            found[row.name] = quickest(row.make(), rounds, turn)
    except KeyboardInterrupt as error:
        stopped = error
    yield from _lines(found) if found else ()
    if stopped:
        raise stopped


def _lines(found: dict[str, dict[str, float]]) -> Iterator[str]:
    columns = list(dict.fromkeys(name for times in found.values() for name in times))
    yield "| µs a call | " + " | ".join([*columns, "funcnet ÷ torch.nn"]) + " |"
    yield "|---|" + "--:|" * (len(columns) + 1)
    for name, times in found.items():
        cells = [f"{times[column]:.3g}" if column in times else "" for column in columns]
        share = f"{times['funcnet'] / times['torch.nn']:.2f}" if "torch.nn" in times else ""
        yield f"| {name} | " + " | ".join([*cells, share]) + " |"
