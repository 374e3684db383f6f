"""Measuring: turns and rounds, peak memory, and the machine's best product.

Every contender of a workload is warmed up, and then all take turns for many rounds, so that all have the same noise. A turn
repeats the call for about the given time; the garbage collector is off meanwhile, as in ``timeit``. The results are the µs per
step of each turn.
"""

import ctypes
import gc
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from examples.benchmarks.workloads import SCANNED, Contender, Training

SIDE = 1024


def seconds(run: Callable[[int], Any], calls: int) -> float:
    """Return the time of a number of calls."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        run(calls)
        return time.perf_counter() - began
    finally:
        if was_on:
            gc.enable()


def calls_of(run: Callable[[int], Any], turn: float) -> int:
    """Warm up, and return the number of calls that take about ``turn`` seconds."""
    run(2)
    return max(1, round(turn / min(seconds(run, 1) for _ in range(3))))


@frozen
class Ready:
    """A training after ten steps: the loss, the calls per turn, and the time of the first call."""

    contender: Contender
    training: Training
    loss: float | None
    calls: int
    first: float = 0.0


def prepared(contenders: Iterable[Contender], turn: float) -> tuple[list[Ready], list[str]]:
    """Make and warm up each contender; the second list has a note on each that fails or computes something else."""
    ready: list[Ready] = []
    notes: list[str] = []
    for contender in contenders:
        try:
            training = contender.make()
            first = seconds(training.run, 1)
            for _ in range(SCANNED // contender.steps - 1):
                training.run(1)
            loss = training.value()
            require_the_same(contender, loss, ready)
            ready.append(Ready(contender, training, loss, calls_of(training.run, turn), first))
        except Exception as error:
            notes.append(f"{contender.label} is left out: {describe_error(error)}")
    return ready, notes


def require_the_same(contender: Contender, loss: float | None, ready: Sequence[Ready]) -> None:
    """Raise an error unless the loss after ten steps equals that of the framework's first contender."""
    framework = contender.family.split()[0]
    first = next((one for one in ready if one.contender.family.split()[0] == framework), None)
    if loss is not None and not math.isfinite(loss):
        raise ValueError(f"after ten steps its loss is {loss}")
    if loss is not None and first is not None and not math.isclose(loss, first.loss or 0.0, rel_tol=0.01):
        raise ValueError(f"after ten steps its loss is {loss:.4f}, that of {first.contender.label} {first.loss:.4f}")


def describe_error(error: Exception) -> str:
    """Return the type of an error and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def rounds(ready: Sequence[Ready], count: int) -> list[dict[str, Any]]:
    """Measure all contenders in turns; return a row for each: its times in µs per step, their quartiles, and its description."""
    times: list[list[float]] = [[] for _ in ready]
    for _ in range(count):
        for column, one in zip(times, ready, strict=True):
            column.append(seconds(one.training.run, one.calls) / (one.calls * one.contender.steps) * 1e6)
    return [
        {
            "label": one.contender.label,
            "family": one.contender.family,
            **spread(column),
            "parameters": one.training.size,
            "loss": one.loss,
            "first": one.first,
            "steps in a turn": one.calls * one.contender.steps,
            "times": column,
        }
        for column, one in zip(times, ready, strict=True)
    ]


def spread(column: Sequence[float]) -> dict[str, float]:
    """Return the quartiles and the median."""
    low, middle, high = statistics.quantiles(column, n=4, method="inclusive") if len(column) > 1 else [column[0]] * 3
    return {"low": low, "median": middle, "high": high}


def memory(contender: Contender) -> float:
    """Return a training's peak in MB during steps: params, state, batch, gradients, and temporary memory.

    It is the peak of the process's resident memory during steps, after two for warm-up and compilation, above the memory resident
    before the training was made. If the system cannot reset the peak, it is the growth of the peak over the whole training.
    """
    give_back()
    before = resident()
    training = contender.make()
    training.run(2)
    give_back()
    begin_peak()
    training.run(3)
    return (peak() - before) / 2**20


def _status(name: str) -> int | None:
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def peak() -> int:
    """Return the peak of the resident memory in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if found is None else found


def resident() -> int:
    """Return the resident memory in bytes, or its peak if the system has no other."""
    found = _status("VmRSS")
    return peak() if found is None else found


def give_back() -> None:
    """Return free memory to the system, if the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def begin_peak() -> None:
    """Reset the peak, on Linux."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def gemm_peak(turn: float) -> dict[str, float]:
    """Return the GFLOP/s of the fastest of many products of 1024×1024, by MKL and, if torch has it, by oneDNN."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    products: dict[str, Callable[[], Any]] = {"torch.mm": lambda: torch.mm(a, b)}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    best: dict[str, float] = {}
    with torch.no_grad():
        for name, product in products.items():
            run = lambda calls, product=product: [product() for _ in range(calls)]
            count = 10 * calls_of(run, turn / 10)
            best[name] = 2 * SIDE**3 / min(seconds(run, 1) for _ in range(count)) / 1e9
    return best
