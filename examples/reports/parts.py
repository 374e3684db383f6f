"""Times of the parts of a training step, which show on a page where the time goes."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

import funcnet as fn
from examples.reports.experiment import FRAMEWORKS, TRAININGS, Experiment, data, first_params
from examples.reports.paper import Paper, ratio

PARTS = ("forward", "loss", "backward", "statistics", "optimizer")
ROUNDS = 400


def parts(experiment: Experiment, seed: int) -> dict[str, float]:
    """Return the median µs of each part of funcnet's step, of the whole, and of torch.nn's step, in turns."""
    train, _ = data(experiment, seed)
    batch = (train.x[: experiment.batch_size], train.targets[: experiment.batch_size])
    params = first_params(experiment, seed)
    theirs = TRAININGS["torch.nn"](experiment, params)[0]
    columns: dict[str, list[float]] = {name: [] for name in (*PARTS, "funcnet", "torch.nn")}
    step = _stepping(experiment, params, batch)
    for i in range(ROUNDS + 20):
        row = step()
        began = time.perf_counter()
        theirs([batch])
        row["torch.nn"] = time.perf_counter() - began
        for name, seconds in row.items() if i >= 20 else ():  # the first rounds are the warm-up
            columns[name].append(seconds * 1e6)
    return {name: statistics.median(column) for name, column in columns.items()}


def _stepping(experiment: Experiment, params: Any, batch: tuple[Any, Any]) -> Callable[[], dict[str, float]]:
    """Return a function that takes a step of funcnet's, part by part, and returns their times."""
    net, loss, opt = experiment.net, experiment.loss, fn.donate(experiment.opt)
    params = fn.tree.map(torch.clone, params)
    state = opt.init(params)

    def step() -> dict[str, float]:
        nonlocal params, state
        with torch.inference_mode():
            times = [time.perf_counter()]
            y, cache = net.apply(params, batch[0])
            times.append(time.perf_counter())
            _, gy = loss.value_and_grad(y, batch[1])
            times.append(time.perf_counter())
            grads = net.grads(params, cache, gy)
            times.append(time.perf_counter())
            params = net.update_stats(params, cache)
            times.append(time.perf_counter())
            params, state = opt.update(grads, state, params)
            times.append(time.perf_counter())
        spans = [b - a for a, b in pairwise(times)]
        return {**dict(zip(PARTS, spans, strict=True)), "funcnet": times[-1] - times[0]}

    return step


def table(paper: Paper, experiments: Sequence[Experiment]) -> None:
    """Add the table of parts, and the shares of torch.nn's step."""
    found = {
        e.name: paper.once(f"parts {e!r} {paper.options.seed}", functools.partial(parts, e, paper.options.seed))
        for e in experiments
    }
    known = {name: row for name, row in found.items() if row is not None}
    rows = [[name, *[f"{row[part]:.0f}" for part in (*PARTS, "funcnet", "torch.nn")]] for name, row in known.items()]
    paper.table("Time of a step in µs, by part", ["net", *PARTS, "funcnet", "torch.nn"], rows)
    shares = {name: (row["forward"] + row["backward"]) / row["torch.nn"] for name, row in known.items()}
    rest = {name: row["funcnet"] / row["torch.nn"] - shares[name] for name, row in known.items()}
    paper.say(
        "Forward and backward passes call the same kernels as torch.nn, and do little else. Their share of torch.nn's "
        f"step is {_listed(shares)}; the share of loss, statistics and optimizer is {_listed(rest)}."
    )


def owed(paper: Paper, experiments: Sequence[Experiment]) -> None:
    """Name the nets that take more than half of torch.nn's seconds, and add the table of parts to explain it."""
    spent = {e.name: [paper.seconds(e.name, framework) for framework in FRAMEWORKS] for e in experiments}
    ratios = {name: float(ratio(*pair)) for name, pair in spent.items() if all(pair)}
    low = [f"{name} ({value})" for name, value in ratios.items() if value < 2]
    verdict = f"It misses this goal for {'; '.join(low)}" if low else "It reaches this goal for every net"
    if ratios:
        paper.say(f"funcnet should take at most half of torch.nn's seconds, a ratio of 2. {verdict}.")
    table(paper, experiments)


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.2f} ({name})" for name, share in shares.items())
