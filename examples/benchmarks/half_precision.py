"""The cost of a training step in bfloat16: ``fn.cast`` beside float32, and beside torch.nn under autocast.

All contenders of a workload take turns in one process. Times are CPU time on one thread, so that other work on the machine
matters little, and wall time on several. Params, gradients and the optimizer's state are float32 for all, the optimizer is fused,
and funcnet's is donated.

    python -m examples.benchmarks.half_precision --page examples/benchmarks/results/HALF_PRECISION.md
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

import funcnet as fn
from examples.benchmarks.command import add_names, file, new_parser, positive, printed, run_command
from examples.benchmarks.peers import funcnet, torch_nn
from examples.benchmarks.workloads import WORKLOADS
from funcnet.kernels.processor import this_processor

NAMES = ("bigmlp", "gpt", "lenet", "resnet")
HALF = torch.bfloat16
GOAL, AMX_GOAL = 0.8, 0.5
"""Goals for bfloat16: relative to torch.nn's time under autocast, and with AMX to funcnet's own in float32."""

Step = Callable[[], Tensor]
"""Takes a step, and returns the loss."""


def ours(name: str, dtype: torch.dtype, compiled: bool) -> Step:
    """Return a function that takes a step of funcnet, with the net cast to ``dtype``, and returns the loss."""
    workload = WORKLOADS[name]
    net = funcnet.NETS[name]()
    net = net if dtype is torch.float32 else fn.cast(net, dtype)
    opt = fn.donate(getattr(fn, workload.optimizer[0])(**workload.optimizer[1]))
    eager = fn.train_step(net, funcnet.LOSSES[workload.loss], opt)
    step: Callable[..., Any] = fn.compile(eager) if compiled else eager
    params = net.init(0)
    state, (x, target) = opt.init(params), workload.draw()

    def run() -> Tensor:
        nonlocal params, state
        with torch.no_grad() if compiled else torch.inference_mode():
            params, state, value = step(params, state, x, target)
        loss: Tensor = value
        return loss

    return run


def theirs(name: str, dtype: torch.dtype, compiled: bool) -> Step:
    """Return the same for torch.nn's twin, with net and loss under autocast."""
    training = torch_nn.TorchTraining(WORKLOADS[name], "compiled" if compiled else "eager", "fused")
    x, target = training.batch
    forward: Callable[..., Tensor] = cast(Any, training.forward)

    def run() -> Tensor:
        training.optimizer.zero_grad()
        with torch.autocast("cpu", HALF, enabled=dtype is HALF):
            value = forward(x, target)
        value.backward()
        training.optimizer.step()
        return value.detach()

    return run


def contenders(name: str, compiled: bool) -> dict[str, Step]:
    """Return the steps by label."""
    words = {torch.float32: "float32", HALF: "bfloat16"}
    return {
        f"{peer} {'compiled' if way else 'eager'}, {word}": make(name, dtype, way)
        for way in (False, True)[: 1 + compiled]
        for peer, make in (("funcnet", ours), ("torch.nn", theirs))
        for dtype, word in words.items()
    }


def measure(steps: dict[str, Step], rounds: int) -> dict[str, tuple[float, float]]:
    """Return for each contender the median ms of a step, and the loss after ten steps."""
    losses = {label: float([run() for _ in range(10)][-1]) for label, run in steps.items()}
    times: dict[str, list[float]] = {label: [] for label in steps}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(rounds):
        for label, run in steps.items():
            began = clock()
            run()
            times[label].append(1e3 * (clock() - began))
    return {label: (statistics.median(column), losses[label]) for label, column in times.items()}


def table(names: Sequence[str], rounds: int, compiled: bool) -> Iterator[str]:
    """Yield the lines of the table, as Markdown."""
    yield "| workload | contender | ms a step | ÷ funcnet's float32 | ÷ torch.nn under autocast | goal | loss after 10 |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for name in names:
        found = measure(contenders(name, compiled), rounds)
        for label, (ms, loss) in found.items():
            way = label.split()[1]  # including its comma
            one, other = found[f"funcnet {way} float32"][0], found[f"torch.nn {way} bfloat16"][0]
            yield f"| {name} | {label} | {ms:.1f} | {ms / one:.2f} | {ms / other:.2f} | {goal(label)} | {loss:.3f} |"


def goal(label: str) -> str:
    """Return the goal of a contender, or ``""`` if it has none."""
    if not (label.startswith("funcnet") and label.endswith("bfloat16")):
        return ""
    return f"{GOAL} of autocast" + f", {AMX_GOAL} of float32" * this_processor().amx


HEAD = """# Cost of a training step in bfloat16

`python -m examples.benchmarks.half_precision {given} --page {page}`,
torch {torch}, {machine}, {halves}, {threads}.

The workloads and optimizers are the same as in `BENCHMARKS.md`. In bfloat16 funcnet's net is `fn.cast(net, torch.bfloat16)`, and
torch.nn's runs under `torch.autocast`. Params, gradients and the optimizer's state are float32 for all. A time is the median of
{rounds} steps, in {clock}; all contenders of a workload take turns in one process. Each framework draws its own initial weights.

"""


def instructions() -> str:
    """Return which instructions for bfloat16 the processor has."""
    cpu = this_processor()
    return "AMX for bfloat16" if cpu.amx else "instructions for bfloat16, no AMX" if cpu.bf16 else "no instructions for bfloat16"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table or write the page."""
    parser = new_parser("half_precision", __doc__)
    add_names(parser, "workload", tuple(funcnet.NETS), NAMES)
    parser.add_argument("--rounds", type=positive, default=25, help="number of turns of each contender")
    parser.add_argument("--threads", type=positive, default=1, help="number of threads of each contender")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="measure compiled steps too")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    fn.kernels.retain_freed_memory()
    lines = printed(table(options.workloads, options.rounds, options.compiled))
    if options.page:
        from examples.reports.__main__ import processor

        given = " ".join([*([] if tuple(options.workloads) == NAMES else options.workloads), f"--rounds {options.rounds}"])
        given += f" --threads {options.threads}" * (options.threads > 1) + " --no-compiled" * (not options.compiled)
        where = {"torch": torch.__version__, "machine": processor(), "halves": instructions()}
        where["threads"] = "one thread" if options.threads == 1 else f"{options.threads} threads"
        where["clock"] = "CPU time" if options.threads == 1 else "wall time"
        options.page.write_text(
            HEAD.format(given=given, page=options.page, rounds=options.rounds, **where) + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    run_command(main)
