"""The cost of training in two processes, beside DistributedDataParallel, ZeRO, FSDP2 and torch's pipelines.

Two workers with one thread each form a gloo group on this machine. All contenders of a workload take turns in the same two
processes; peak memory is measured in two processes for each contender.

    python -m examples.benchmarks.distributed --page examples/benchmarks/results/DISTRIBUTED.md
"""

import argparse
import datetime
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from examples.benchmarks import collectives, measure
from examples.benchmarks.command import add_names, duration, file, new_parser, positive, run_command
from examples.benchmarks.pipelines import MICROBATCHES, SCHEDULES, Span, idle_share
from examples.benchmarks.processes import together
from examples.benchmarks.report import cell, table
from examples.benchmarks.workloads import WORKLOADS, Contender, Training, Workload
from examples.reports.__main__ import processor
from funcnet.distributed import bubble

NAMES = ("disk_mlp", "bigmlp", "lenet", "gpt")
KINDS = ("data parallel", "sharded optimizer", "sharded params")
SIZE, ROUNDS, TURN, REPEATS = 2, 25, 0.08, 2
HEAD = """# Cost of training in two processes

`python -m examples.benchmarks.distributed{quick} --page examples/benchmarks/results/DISTRIBUTED.md`,
torch {torch}, {processor}, {date}.

Two processes with one thread each form a gloo group on this machine and share its {cores} cores with gloo's threads. Each
computes half of the rows. All contenders of a workload take turns in the same two processes, in another order each round. The
time of a step is the slower worker's. Times are medians of {rounds} rounds. A quotient is the median of the rounds' quotients:
below 1, funcnet is faster. The comparison is with the fastest of torch's settings: DistributedDataParallel with and without
bucket views, `fully_shard` of each layer and of the whole net. Optimizers are fused in torch and donated in funcnet.

Memory is the peak of a worker's resident memory during steps, above the level before the training was made: params, state, batch,
gradients and temporary memory. Each contender has its own processes, in which the same training has run before, so that code does
not count. A number is the mean over both workers and {repeats} runs. The comparison is with the smallest of torch's settings. The
tiny net is left out, as its memory is below the noise.
"""
HIDDEN = """
## Communication hidden by data parallelism

Three times are measured: a step, the same step with its collectives replaced with no-ops, and these collectives without the step,
all started at once. The hidden share is 1 - (step - step without communication) / communication. Both workers compute all the
time and the machine has no other cores, so gloo's copying slows the computation down; only waiting can be hidden. The share is
uncertain if communication is a small part of a step.
"""
PIPELINES = """
## Pipelines

A net of 16 layers `Linear(512, 512)`-ReLU in two stages, MSE, AdamW, {rows} rows in {microbatches} micro-batches. The bubble is
the share of a step, from the first forward pass to the last backward pass, in which a stage computes neither; it includes
messages and the schedule's own work. In the formula, a forward pass and each half of a backward pass take one unit, and messages
take none. torch has no zero-bubble schedule with one stage per worker.
"""


def prepared(contenders: Iterable[Contender], turn: float) -> tuple[list[measure.Ready], list[str]]:
    """Make and warm up all trainings; every worker uses the first worker's numbers of calls."""
    ready, notes = [], []
    for contender in contenders:
        try:
            training = contender.make()
            calls = agreed(measure.calls_of(training.run, turn))
            ready.append(measure.Ready(contender, training, training.value(), calls))
        except Exception as error:
            notes.append(f"{contender.label} is left out: {measure.describe_error(error)}")
    return ready, notes


def agreed(number: int) -> int:
    """Return the first worker's number on every worker."""
    found = torch.tensor(number)
    dist.broadcast(found, 0)
    return int(found)


def rounds(ready: Sequence[measure.Ready], count: int) -> dict[str, list[float]]:
    """Measure all contenders in turns, in the same order on every worker; return this worker's ms per step."""
    times: dict[str, list[float]] = {one.contender.label: [] for one in ready}
    for i in range(count):
        for one in random.Random(i).sample(list(ready), len(ready)):
            dist.barrier()
            times[one.contender.label].append(measure.seconds(one.training.run, one.calls) / one.calls * 1e3)
    return times


class Alone(Training):
    """The collectives of a step, without the step."""

    size = 0

    def __init__(self, calls: list[collectives.Call]) -> None:
        """Make the tensors."""
        self.again, self.nbytes, self.count = collectives.again(calls), collectives.nbytes(calls), len(calls)

    def run(self, calls: int) -> None:
        """Run the collectives."""
        for _ in range(calls):
            self.again()

    def value(self) -> None:
        """Return nothing."""


def _communication(kind: Callable[[Workload], Any], workload: Workload) -> "Alone":
    return Alone(kind(workload).calls())


def halves(workload: Workload) -> list[Contender]:
    """Return the two halves of a data-parallel step for both frameworks: computation and communication."""
    from examples.benchmarks.peers import funcnet_distributed, torch_distributed

    found = []
    for name, kind in (("funcnet", funcnet_distributed.Silent), ("torch", torch_distributed.Silent)):
        found.append(Contender(f"{name}, computation", "half", partial(kind, workload)))
        found.append(Contender(f"{name}, communication", "half", partial(_communication, kind, workload)))
    return found


def contenders(workload: Workload) -> list[Contender]:
    """Return all contenders, funcnet's first."""
    from examples.benchmarks.peers import funcnet_distributed, torch_distributed

    return [*funcnet_distributed.contenders(workload), *torch_distributed.contenders(workload)]


def times_of(name: str, count: int, turn: float) -> dict[str, Any]:
    """Measure the contenders of a workload in every worker."""
    workload = WORKLOADS[name]
    ready, notes = prepared([*contenders(workload), *halves(workload)], turn)
    sent = {one.contender.label: (one.training.count, one.training.nbytes) for one in ready if isinstance(one.training, Alone)}
    losses = {one.contender.label: one.loss for one in ready}
    return {"times": rounds(ready, count), "losses": losses, "sent": sent, "parameters": ready[0].training.size, "notes": notes}


def memory_of(name: str, label: str) -> float | None:
    """Return a contender's peak memory in MB; it has trained before, so that all code is loaded."""
    contender = next(one for one in contenders(WORKLOADS[name]) if one.label == label)
    try:
        contender.make().run(3)
        return measure.memory(contender)
    except Exception:
        return None


def slowest(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return for each contender the times of the slower worker."""
    return {label: [*map(max, *[one["times"][label] for one in found])] for label in found[0]["times"]}


def families() -> dict[str, tuple[str, list[str]]]:
    """Return for each kind of parallelism funcnet's label and torch's."""
    found: dict[str, tuple[str, list[str]]] = {kind: (f"funcnet, {kind}", []) for kind in KINDS}
    from examples.benchmarks.peers import torch_distributed

    for one in torch_distributed.contenders(WORKLOADS[NAMES[0]]):
        found[one.family.removeprefix("torch ")][1].append(one.label)
    return found


def quotient(tops: Sequence[float], bottoms: Sequence[float]) -> float:
    """Return the median of the quotients of two columns."""
    return statistics.median([a / b for a, b in zip(tops, bottoms, strict=True)])


def least(labels: Iterable[str], numbers: dict[str, Any]) -> str | None:
    """Return the measured label with the smallest number or median."""
    known = [label for label in labels if numbers.get(label) is not None]
    middle = lambda label: statistics.median(numbers[label]) if isinstance(numbers[label], list) else numbers[label]
    return min(known, key=middle, default=None)


def steps_row(kind: str, name: str, times: dict[str, list[float]], memory: dict[str, Any]) -> list[str]:
    """Return a row of the table of steps."""
    ours, theirs = families()[kind]
    fastest, smallest, ms = least(theirs, times), least(theirs, memory), lambda one: shown(times.get(one or ""))
    both = ours in times and fastest is not None
    sizes = [memory.get(one or "") for one in (ours, smallest)]
    share = sizes[0] / sizes[1] if sizes[0] is not None and sizes[1] is not None else None
    return [
        *(name, kind, ms(ours), ms(fastest), cell(quotient(times[ours], times[fastest or ""]) if both else None), fastest or "—"),
        *(cell(sizes[0], 1), cell(sizes[1], 1), cell(share)),
    ]


def shown(column: Sequence[float] | None) -> str:
    """Return the median with three digits."""
    return f"{statistics.median(column):.3g}" if column else "—"


def hidden_rows(name: str, times: dict[str, list[float]], sent: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the two rows of a workload for the table of hidden communication."""
    steps = {"funcnet": "funcnet, data parallel", "torch": "DistributedDataParallel, bucket views"}
    for framework, step in steps.items():
        columns = [times.get(one, []) for one in (step, f"{framework}, computation", f"{framework}, communication")]
        if all(columns):
            count, size = sent[f"{framework}, communication"]
            added = statistics.median([whole - without for whole, without in zip(*columns[:2], strict=True)])
            share = 1 - added / statistics.median(columns[2])
            yield [name, framework, str(count), f"{size / 1e6:.3g}", *map(shown, columns), f"{100 * share:.0f} %"]


def pipelines_of(count: int, turn: float) -> dict[str, Any]:
    """Measure the pipelines in every worker: ms per step, and the worker's times of computation in some steps."""
    from examples.benchmarks.peers import funcnet_distributed, torch_distributed

    ready, notes = prepared([*funcnet_distributed.pipelines(), *torch_distributed.pipelines()], turn)
    times = rounds(ready, count)
    spans = {one.contender.label: [traced(one.training) for _ in range(count)] for one in ready}
    return {"times": times, "spans": spans, "notes": notes}


def traced(training: Any) -> list[Span]:
    """Take a step when all workers are ready, and return this worker's times of computation."""
    dist.barrier()
    found: list[Span] = training.traced()
    return found


def pipeline_rows(found: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield a row for each schedule; the bubble is the median over the traced steps."""
    times = slowest(found)
    idle = {
        label: statistics.median([idle_share(stages) for stages in zip(*[one["spans"][label] for one in found], strict=True)])
        for label in times
    }
    for name in SCHEDULES:
        ours, theirs = f"funcnet, {name}", f"torch, {name}"
        both = quotient(times[ours], times[theirs]) if ours in times and theirs in times else None
        shares = [cell(idle.get(ours)), cell(idle.get(theirs)), cell(bubble(name, SIZE, MICROBATCHES))]
        yield [name, shown(times.get(ours)), shown(times.get(theirs)), cell(both), *shares]


def measured(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Measure everything; return the page's three tables and the notes."""
    steps: list[list[str]] = []
    hidden: list[list[str]] = []
    notes: list[str] = []
    for name in options.workloads:
        say(name)
        found = together(SIZE, times_of, name, options.rounds, options.turn)
        times, memory = slowest(found), {}
        for label in times if name != "disk_mlp" else ():
            if ", comp" not in label and ", comm" not in label:
                runs = [mb for _ in range(options.repeats) for mb in together(SIZE, memory_of, name, label)]
                memory[label] = None if None in runs else statistics.mean(runs)
        steps += [steps_row(kind, name, times, memory) for kind in KINDS]
        hidden += hidden_rows(name, times, found[0]["sent"])
        notes += [f"{name}: {note}" for note in found[0]["notes"]]
    say("pipelines")
    found = together(SIZE, pipelines_of, options.rounds, options.turn)
    return [*map(table, HEADERS, (steps, hidden, pipeline_rows(found)))], notes + found[0]["notes"]


HEADERS = (
    ["", "", "funcnet, ms", "torch, ms", "quotient", "torch's fastest", "funcnet, MB", "torch, MB", "quotient"],
    ["", "", "collectives", "MB", "step, ms", "without communication, ms", "communication, ms", "hidden"],
    ["schedule", "funcnet, ms", "torch, ms", "quotient", "bubble, funcnet", "bubble, torch", "by formula"],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the page."""
    parser = new_parser("distributed", __doc__)
    add_names(parser, "workload", NAMES)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of turns of each contender")
    parser.add_argument("--turn", type=duration, default=TURN, help="approximate seconds per turn")
    parser.add_argument("--repeats", type=positive, default=REPEATS, help="number of measurements of peak memory")
    parser.add_argument("--quick", action="store_true", help="take few short turns of the two smallest nets")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    if options.quick:
        options.workloads = list(NAMES[:2]) if options.workloads == [*NAMES] else options.workloads
        options.rounds, options.turn, options.repeats = 5, 0.02, 1
    tables, notes = measured(options, lambda what: print(f"{what} ...", flush=True))
    head = HEAD.format(
        quick=" --quick" * options.quick,
        torch=torch.__version__,
        processor=processor(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cores=torch.multiprocessing.cpu_count(),
        rounds=options.rounds,
        repeats=options.repeats,
    )
    abouts = head, HIDDEN, PIPELINES.format(rows=256, microbatches=MICROBATCHES)
    page = "".join(f"{about}\n{one}\n" for about, one in zip(abouts, tables, strict=True))
    page += "".join(["\n## Notes\n\n", *[f"- {note}\n" for note in notes]]) if notes else ""
    print(page)
    if options.page:
        options.page.write_text(page)


if __name__ == "__main__":
    run_command(main)
