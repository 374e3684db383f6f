"""Turns: contenders in one process that take turns, on one thread, and tables of their times.

A time is the median of the process's CPU time in ms, which other programs on the machine disturb less than time on the wall. In
each round the order is another, and the garbage collector is off.
"""

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from time import process_time
from typing import Any

import torch

Ways = dict[str, Callable[[], Any]]


def measured(ways: Ways, rounds: int) -> dict[str, float]:
    """Return the median time of each way, in ms; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    was_on, threads = gc.isenabled(), torch.get_num_threads()
    gc.disable()
    torch.set_num_threads(1)
    try:
        for turn in range(rounds + 1):
            order = random.Random(turn).sample([*ways], len(ways))
            for name in order:
                times[name].append(_time(ways[name]))
    finally:
        torch.set_num_threads(threads)
        if was_on:
            gc.enable()
    return {name: statistics.median(one[1:]) for name, one in times.items()}


def _time(work: Callable[[], Any]) -> float:
    began = process_time()
    result = work()
    ended = process_time()
    del result
    return 1e3 * (ended - began)


def table(cases: Iterable[tuple[str, Ways]], quotients: dict[str, tuple[str, str]], rounds: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown: a row for each case, the times of all ways, and some of their quotients."""
    is_first = True
    for name, ways in cases:
        found = measured(ways, rounds)
        if is_first:
            yield "| | " + " | ".join([*found, *quotients]) + " |"
            yield "|---|" + "--:|" * (len(found) + len(quotients))
            is_first = False
        parts = [f"{found[top] / found[bottom]:.2f}" for top, bottom in quotients.values()]
        yield f"| {name} | " + " | ".join([*[f"{time:.3g}" for time in found.values()], *parts]) + " |"
