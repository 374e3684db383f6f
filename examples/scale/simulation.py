"""A simulation of scaling a training from 8 to 1024 devices, checked with 2 and 4 processes on this machine.

The command also measures the numbers of this machine, predicts steps with the same formulas (``costs``), and measures these
steps.

    python -m examples.scale.simulation --out examples/scale/results
"""

import argparse
import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.benchmarks.processes import together
from examples.benchmarks.report import table
from examples.reports.__main__ import processor
from examples.scale import inputs
from examples.scale.costs import STRATEGIES, Cost, Net, step_cost

DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)
CHECKED = ("bigmlp", "gpt")
COLOURS: dict[str, str] = dict(zip(STRATEGIES, ("tab:grey", "tab:blue", "tab:red", "tab:orange", "tab:green"), strict=True))

HEAD = """# From 8 to 1024 devices: a simulation

`python -m examples.scale.simulation --out examples/scale/results`, torch {torch}, {processor}, {date}.

The time of a training step with five strategies, from the formulas in [`costs.py`](../costs.py): computation, bytes, latency and
overlap of collectives, and bubbles of pipelines. The batch stays the same, so with more devices each has fewer sequences, and
computes them one after the other. The efficiency is the share of the step in which devices do the work that one device would do.

![Seconds a step, and efficiency, for each number of devices](simulation.png)

## Inputs

"""

RESULTS = """
## Results

Seconds per step, and the efficiency. Memory is the peak of one of 1024 devices; the last column is the smallest number of devices
with which the training fits into 80 GB.

"""

CHECK = """
## Check

The same formulas predict steps from numbers of this machine that the command measures first: FLOP/s and the time that does not
depend on the batch, from steps of one process with all rows and with a quarter of them; the rate of the optimizer's update;
latency and bandwidth of gloo, from all-reduces of 1 kB and 4 MB with the same number of processes. The machine has {cores} cores,
which n processes share: for n > {cores} the rate of each is divided by n / {cores}. gloo runs on the same cores, so nothing
overlaps.

"""


def inputs_table(net: Net) -> str:
    """Write the table of inputs."""
    known = {"forward": net.forward, "backward": net.backward, "kept": net.kept / 1e9, "params": net.params}
    return "\n".join(["| input | value | source |", "|---|---|---|", *[_line(row, known) for row in inputs.ROWS]]) + "\n"


def _line(row: tuple[str, str, str], known: dict[str, float]) -> str:
    name, value, source = row
    return f"| {name} | {value.format(**known)} | {source} |"


def simulated(net: Net) -> dict[str, list[Cost]]:
    """Return the cost of a step for each strategy and number of devices."""
    return {one: [step_cost(one, net, inputs.CLUSTER, n, inputs.SEQUENCES) for n in DEVICES] for one in STRATEGIES}


def results_table(costs: dict[str, list[Cost]]) -> str:
    """Write the table of results."""
    rows = []
    for name, column in costs.items():
        fits = [n for n, cost in zip(DEVICES, column, strict=True) if cost.memory <= inputs.CLUSTER.memory]
        cells = [f"{cost.seconds:.3g} ({cost.efficiency:.0%})" for cost in column]
        rows.append([name, *cells, f"{column[-1].memory / 1e9:.0f} GB", str(min(fits)) if fits else "none"])
    return table(["devices", *map(str, DEVICES), "memory", "fits from"], rows) + "\n"


def checked(names: Sequence[str], count: int) -> Iterator[list[str]]:
    """Measure steps of 2 and 4 processes, and yield them with the predictions of the formulas."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    links = {n: inputs.link(n, count) for n in (2, 4)}
    for name in names:
        net, (times,) = inputs.of_workload(name), together(1, inputs.single, name, count)
        for n, between in links.items():
            machine = inputs.machine_of(net, times, between, cores)
            found = together(n, inputs.parallel_step, name, count)
            took = max(seconds for seconds, _ in found)
            cost = step_cost("data parallel", inputs.part_of(net, n), machine, n, n, buckets=found[0][1])
            rates = [f"{machine.flops / 1e9:.0f}", f"{1e6 * between.latency:.0f}", f"{between.bandwidth / 1e9:.2f}"]
            said = [f"{1e3 * cost.seconds:.1f}", f"{1e3 * cost.communication:.1f}", f"{1e3 * took:.1f}"]
            yield [name, str(n), *rates, *said, f"{cost.seconds / took - 1:+.0%}"]


CHECK_HEADER = [
    *("", "processes", "GFLOP/s", "latency, µs", "bandwidth, GB/s"),
    *("predicted, ms", "of it communication, ms", "measured, ms", "error"),
]


def plot(costs: dict[str, list[Cost]], path: Path) -> None:
    """Draw the time of a step and the efficiency, dotted where the training exceeds the memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    ideal = [costs["data parallel"][0].computing * DEVICES[0] / n for n in DEVICES]
    left.plot(DEVICES, ideal, color="0.75", lw=1, zorder=0)
    left.annotate("computation only", (DEVICES[-3], ideal[-3]), xytext=(-4, -10), **_beside("0.5", "right"))
    for name, column in costs.items():
        fits = column[-1].memory <= inputs.CLUSTER.memory
        style = {"color": COLOURS[name], "ls": "-" if fits else ":", "lw": 1.8, "marker": "o", "ms": 3.5}
        left.plot(DEVICES, [cost.seconds for cost in column], **style)
        right.plot(DEVICES, [100 * cost.efficiency for cost in column], **style)
    _axes(left, "seconds a step")
    _axes(right, "efficiency, %")
    left.set_yscale("log")
    left.set_yticks((0.5, 1, 2, 5, 10, 20, 50), ["0.5", "1", "2", "5", "10", "20", "50"])
    left.minorticks_off()
    right.set_ylim(0, 100)
    _labels(right, costs)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _beside(colour: str, side: str = "left") -> dict[str, Any]:
    return {"textcoords": "offset points", "color": colour, "ha": side, "va": "center", "fontsize": 9.5}


def _axes(axes: Any, what: str) -> None:
    """Label the axis with the numbers of devices, and remove unused lines."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEVICES, [str(n) for n in DEVICES])
    axes.set_xlabel("devices")
    axes.set_title(what, loc="left", fontsize=11)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _labels(axes: Any, costs: dict[str, list[Cost]]) -> None:
    """Write each name at the right end of its line; names of close lines are moved apart."""
    last, y = {name: 100 * column[-1].efficiency for name, column in costs.items()}, float("-inf")
    for name in sorted(last, key=lambda name: last[name]):
        y = max(y + 5.5, last[name])
        held = costs[name][-1].memory
        label = name if held <= inputs.CLUSTER.memory else f"{name}, {held / 1e9:.0f} GB: does not fit"
        axes.annotate(label, (DEVICES[-1], y), xytext=(9, 0), annotation_clip=False, **_beside(COLOURS[name]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, measure the inputs of the check, and write the page and the plot."""
    parser = argparse.ArgumentParser("python -m examples.scale.simulation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/scale"), help="folder for the page and the plot (out/scale)")
    parser.add_argument("--count", type=int, default=30, help="number of steps and all-reduces to measure (30)")
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="measure on this machine (yes)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    net = inputs.gpt()
    costs = simulated(net)
    plot(costs, options.out / "simulation.png")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    page = HEAD.format(torch=torch.__version__, processor=processor(), date=date) + inputs_table(net)
    page += RESULTS + results_table(costs)
    if options.check:
        page += CHECK.format(cores=os.cpu_count()) + table(CHECK_HEADER, checked(CHECKED, options.count)) + "\n"
    (options.out / "SIMULATION.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
