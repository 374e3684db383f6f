"""The parts of an eager step's time, for nets whose kernels take as long as the Python around them.

Every number is the CPU time in µs on one thread, the median of rounds in which all take turns:

kernels      the kernels of one phase, recorded once and called in order with the same arguments, through their C functions
by plan      the phase as a custom loop calls it, after calls with arguments of the same shapes
with checks  the phase without a plan, as in the first calls

``fn.train_step`` calls forward, loss and backward with one plan for all three, which checks the arguments once.

A phase that is timed by itself has its operands in the cache and reuses the memory that it has just freed. The phases therefore
add up to less than the step; the row "memory, caches, the step's own Python" has the rest.

    python -m examples.benchmarks.budget --rounds 20
"""

from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest.mock import patch

import torch

from examples.benchmarks.command import add_names, new_parser, positive, printed, run_command
from examples.benchmarks.floor import Recording
from examples.benchmarks.peers.funcnet import parts
from examples.benchmarks.turns import measured
from examples.benchmarks.workloads import WORKLOADS
from funcnet.kernels.private_names import direct
from funcnet.plans import Plans

NETS = ("disk_mlp", "mlp_adam", "pychrot")
CALLS = 50

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
Phases = dict[str, Callable[[], Any]]


def phases(name: str) -> Phases:
    """Return the phases of a step by name, as functions without arguments, and the step as ``"step"``."""
    made, opt, params = parts(WORKLOADS[name], donated=False)
    step = cast(Any, made)
    net, loss, state = step.net, step.loss, opt.init(params)
    x, target = WORKLOADS[name].draw()
    with torch.inference_mode():
        y, cache = net.apply(params, x)
        gy = loss.value_and_grad(y, target)[1]
        grads = net.grads(params, cache, gy)
    return {
        "forward": lambda: net.apply(params, x),
        "loss": lambda: loss.value_and_grad(y, target),
        "backward": lambda: net.grads(params, cache, gy),
        "forward, loss, backward": lambda: step.gradient(params, x, target),
        "statistics": lambda: net.update_stats(params, cache),
        "optimizer": lambda: opt.update(grads, state, params),
        "step": lambda: step(params, state, x, target),
    }


def kernels(phase: Callable[[], Any]) -> list[Call]:
    """Return the kernels that a phase calls, with their arguments; the phase has run before."""
    with torch.inference_mode(), Recording() as recording:
        for _ in range(4):
            recording.calls.clear()
            phase()
    return [(direct(kernel), arguments, named) for kernel, arguments, named in recording.calls]


def kernels_of(phase: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that calls the kernels of a phase in order."""
    calls = kernels(phase)

    def run() -> None:
        for kernel, arguments, named in calls:
            kernel(*arguments, **named)

    return run


def repeated(f: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that calls another one many times."""

    def run() -> None:
        with torch.inference_mode():
            for _ in range(CALLS):
                f()

    return run


def without_plans(f: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls another one without plans."""

    def run() -> None:
        with patch.object(Plans, "find", lambda self, arguments: None), patch.object(Plans, "is_due", lambda self: False):
            f()

    return run


def budget(name: str, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return the µs of each phase: only its kernels, by plan, and with checks."""
    found = phases(name)
    ways: dict[str, Callable[[], Any]] = {}
    for phase, f in found.items():
        ways[f"kernels of {phase}"] = repeated(kernels_of(f))
        ways[f"{phase} by plan"] = repeated(f)
        ways[f"{phase} with checks"] = without_plans(repeated(f))
    times = {way: 1e3 * ms / CALLS for way, ms in measured(ways, rounds).items()}
    return {phase: (times[f"kernels of {phase}"], times[f"{phase} by plan"], times[f"{phase} with checks"]) for phase in found}


def table(name: str, found: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {name}, µs | kernels | by plan | with checks | Python by plan |"
    yield "|---|--:|--:|--:|--:|"
    for phase, (alone, plan, checked) in found.items():
        yield f"| {phase} | {alone:.1f} | {plan:.1f} | {checked:.1f} | {plan - alone:.1f} |"
    together = [found[phase] for phase in ("forward, loss, backward", "statistics", "optimizer")]
    rest = [whole - sum(column) for whole, column in zip(found["step"], zip(*together, strict=True), strict=True)]
    cells = " | ".join([f"{time:.1f}" for time in (*rest, rest[1] - rest[0])])
    yield f"| memory, caches, the step's own Python | {cells} |"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = new_parser("budget", __doc__)
    add_names(parser, "net", NETS)
    parser.add_argument("--rounds", type=positive, default=20, help="number of turns of each variant")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    printed(line for name in options.nets for line in (*table(name, budget(name, options.rounds)), ""))


if __name__ == "__main__":
    run_command(main)
