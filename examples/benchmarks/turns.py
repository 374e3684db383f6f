"""Contenders measured in turns in one process, and tables of their times.

A time is a median in ms: on one thread of the CPU time of the process, which other programs affect less, on more threads of wall
time. The order changes in each round, and the garbage collector is off.
"""

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter, process_time
from typing import Any

import torch

Ways = dict[str, Callable[[], Any]]


def measured(ways: Ways, rounds: int, threads: int = 1) -> dict[str, float]:
    """Return the median time of each contender in ms; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    was_on, before, clock = gc.isenabled(), torch.get_num_threads(), process_time if threads == 1 else perf_counter
    gc.disable()
    torch.set_num_threads(threads)
    try:
        for turn in range(rounds + 1):
            order = random.Random(turn).sample([*ways], len(ways))
            for name in order:
                times[name].append(_time(ways[name], clock))
    finally:
        torch.set_num_threads(before)
        if was_on:
            gc.enable()
    return {name: statistics.median(one[1:]) for name, one in times.items()}


def _time(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    result = work()
    ended = clock()
    del result
    return 1e3 * (ended - began)


def table(
    cases: Iterable[tuple[str, Ways]], quotients: dict[str, tuple[str, str]], rounds: int, threads: int = 1
) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row for each case, with the times of all contenders and some of their quotients."""
    is_first = True
    for name, ways in cases:
        found = measured(ways, rounds, threads)
        if is_first:
            yield "| | " + " | ".join([*found, *quotients]) + " |"
            yield "|---|" + "--:|" * (len(found) + len(quotients))
            is_first = False
        parts = [f"{found[top] / found[bottom]:.2f}" for top, bottom in quotients.values()]
        yield f"| {name} | " + " | ".join([*[f"{time:.3g}" for time in found.values()], *parts]) + " |"
