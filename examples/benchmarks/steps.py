"""The cost of a training step: funcnet's pure functions beside torch.nn, autograd and torch.optim.

The net is 2-25-25-25-2 with tanh, the loss MSE, the batch 100, float32, on one thread. The contenders take turns
for many rounds of steps, so that all have the same noise; the median and the quartiles of the rounds are printed.

    python -m examples.benchmarks.steps --rounds 30 --steps 200
"""

import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.benchmarks.command import new_parser, positive, run_command

Steps = Callable[[int], None]
"""Takes a number of steps."""

net = fn.serial(fn.Linear(2, 25), fn.Tanh(), fn.Linear(25, 25), fn.Tanh(), fn.Linear(25, 25), fn.Tanh(), fn.Linear(25, 2))


def ours(optimizer: fn.Optimizer, x: Tensor, target: Tensor, mode: Callable[[], Any] = torch.inference_mode) -> Steps:
    """Return a function that takes a number of funcnet steps in inference mode."""
    step = fn.train_step(net, fn.MSE(), optimizer)
    params = net.init(0)
    state = optimizer.init(params)

    def run(count: int) -> None:
        nonlocal params, state
        with mode():
            for _ in range(count):
                params, state, _ = step(params, state, x, target)

    return run


def theirs(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], x: Tensor, target: Tensor) -> Steps:
    """Return the same for torch.nn, with the optimizer that ``make`` makes from the parameters."""
    layers = [nn.Linear(2, 25), nn.Tanh(), nn.Linear(25, 25), nn.Tanh(), nn.Linear(25, 25), nn.Tanh(), nn.Linear(25, 2)]
    twin, criterion = nn.Sequential(*layers), nn.MSELoss()
    optimizer = make(twin.parameters())

    def run(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            criterion(twin(x), target).backward()
            optimizer.step()

    return run


def contenders() -> dict[str, Steps]:
    """Return a step for each contender, by name; the settings of the optimizers are equal."""
    x, target = fn.random.uniform(1, (100, 2)), fn.random.uniform(2, (100, 2))
    sgd: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9}
    adam: dict[str, Any] = {"lr": 1e-3}
    steps = {
        "funcnet SGD": ours(fn.SGD(**sgd), x, target),
        "funcnet SGD, donated": ours(fn.donate(fn.SGD(**sgd)), x, target),
        "funcnet SGD, donated, fused": ours(fn.donate(fn.SGD(**sgd, fused=True)), x, target),
        "funcnet SGD, outside of inference mode": ours(fn.SGD(**sgd), x, target, nullcontext),
        "funcnet Adam": ours(fn.Adam(**adam), x, target),
        "funcnet Adam, outside of inference mode": ours(fn.Adam(**adam), x, target, nullcontext),
        "funcnet Adam, donated": ours(fn.donate(fn.Adam(**adam)), x, target),
    }
    for kind in ("default", "foreach", "fused"):
        how: dict[str, Any] = {} if kind == "default" else {kind: True}
        steps[f"torch.nn SGD, {kind}"] = theirs(partial(torch.optim.SGD, **sgd, **how), x, target)
        steps[f"torch.nn Adam, {kind}"] = theirs(partial(torch.optim.Adam, **adam, **how), x, target)
    return steps


def measure(steps: dict[str, Steps], rounds: int, count: int) -> dict[str, list[float]]:
    """Return for each contender the µs per step of every round, in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step(count)
            times[name].append((time.perf_counter() - began) / count * 1e6)
    return {name: column[1:] for name, column in times.items()}  # the first round warms up


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = new_parser("steps", __doc__)
    parser.add_argument("--rounds", type=positive, default=30, help="number of turns of each contender")
    parser.add_argument("--steps", type=positive, default=200, help="number of steps per turn")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    times = measure(contenders(), options.rounds, options.steps)
    medians = {name: statistics.median(column) for name, column in times.items()}
    print(f"{'µs a step':40}{'quartile':>10}{'median':>10}{'quartile':>10}   share of torch.nn's default, foreach, fused")
    for name, column in times.items():
        kind = "SGD" if "SGD" in name else "Adam"
        low, _, high = statistics.quantiles(column, n=4) if len(column) > 1 else (column[0],) * 3
        shares = [medians[name] / medians[f"torch.nn {kind}, {way}"] for way in ("default", "foreach", "fused")]
        print(f"{name:40}{low:10.1f}{medians[name]:10.1f}{high:10.1f}   {'  '.join(f'{share:.2f}' for share in shares)}")


if __name__ == "__main__":
    run_command(main)
