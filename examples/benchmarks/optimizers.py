"""The cost of a donated step of each optimizer, beside torch.optim's.

python -m examples.benchmarks.optimizers --page examples/benchmarks/results/OPTIMIZERS.md
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from examples.benchmarks import muon, turns
from examples.benchmarks.command import file, new_parser, positive, printed, run_command
from examples.benchmarks.turns import Ways
from examples.reports.__main__ import processor

ROUNDS, COUNT, SHAPE, THREADS = 20, 100, (250, 400), (1, 2)
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
MOMENTUM: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9}
OURS_ONLY = ("LAMB", "LARS", "AdaBelief", "Yogi", "Adan", "ADOPT", "SignSGD", "AdEMAMix", "NovoGrad", "SM3")
QUOTIENTS = {"funcnet / torch": ("funcnet", "torch")}
QUOTIENTS_OF_OURS = {"/ AdamW": ("step", "AdamW")}

HEAD = """# Cost of optimizers

`python -m examples.benchmarks.optimizers --rounds {rounds} --threads {threads} --page examples/benchmarks/results/OPTIMIZERS.md`,
torch {torch}, {processor}, float32.

One step of {millions:g} million parameters in {count} tensors of shape {shape}. funcnet's optimizers are donated. torch's are
fused if torch has a fused kernel, else foreach; torch lacks Lion, so its formula is written with `torch._foreach` operations.
Contenders take turns in one process, in another order each round. A number is the median of {rounds} rounds in ms: CPU time of
the process on one thread, wall time on more. A quotient below 1 means that funcnet's step is faster.
"""

OTHERS = """
## Optimizers that torch lacks, on one thread

The last column is the time as a multiple of an AdamW step in funcnet.
"""

MATRICES = """
## Muon on the matrices of a GPT, on one thread

A block of width d has matrices of shape (3 d, d), (d, d), (4 d, d) and (d, 4 d). The Newton-Schulz steps are in bfloat16, as in
torch, except in the float32 column.
"""


def optimizers() -> dict[str, tuple[fn.Optimizer, Callable[[list[Tensor]], Callable[[], Any]]]]:
    """Return, by the name of the row, funcnet's optimizer and a function of params that makes torch's step."""
    pairs: dict[str, tuple[fn.Optimizer, Callable[[list[Tensor]], Callable[[], Any]]]] = {
        "SGD with momentum, fused": (fn.SGD(**MOMENTUM, fused=True), lambda ps: of_torch(ps, "SGD", **MOMENTUM)),
        "SGD with momentum": (fn.SGD(**MOMENTUM), lambda ps: of_torch(ps, "SGD", **MOMENTUM)),
        "Lion": (fn.Lion(1e-4, weight_decay=0.1), lion_in_lists),
        "RMSprop with momentum, centered": (
            fn.RMSprop(**MOMENTUM, centered=True),
            lambda ps: of_torch(ps, "RMSprop", **MOMENTUM, centered=True),
        ),
    }
    for name in ("AdamW", "Adam", "SGD", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta", "Rprop", "ASGD"):
        pairs[name] = getattr(fn, name)(lr=1e-3), partial(of_torch, name=name, lr=1e-3)
    return pairs


def tensors(seed: int, count: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Draw params or gradients."""
    return [0.05 * fn.random.normal(fn.fold_in(fn.key(seed), i), shape) for i in range(count)]


def of_funcnet(optimizer: fn.Optimizer, params: list[Tensor], grads: list[Tensor]) -> Callable[[], list[Tensor]]:
    """Return a function that takes a step, and returns the params."""
    optimizer = fn.donate(optimizer)
    held: list[Any] = [params, optimizer.init(params)]

    def step() -> list[Tensor]:
        held[:] = optimizer.update(grads, held[1], held[0])
        new: list[Tensor] = held[0]
        return new

    return step


def of_torch(params: list[Tensor], name: str, **how: Any) -> Callable[[], Any]:
    """Return a function that takes a step of torch's optimizer, with the gradients already in ``grad`` of the params."""
    way = {"fused": True} if name in FUSED else {"foreach": True}
    step: Callable[[], Any] = getattr(torch.optim, name)(params, **how, **way).step
    return step


def lion_in_lists(params: list[Tensor], lr: float = 1e-4, decay: float = 0.1) -> Callable[[], Any]:
    """Return a function that takes a step of Lion, one ``torch._foreach`` operation at a time on all tensors."""
    lists: Any = torch  # its functions of lists are private
    ms = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step() -> None:
        grads = [p.grad for p in params if p.grad is not None]
        lists._foreach_mul_(params, 1 - lr * decay)
        u = lists._foreach_lerp(ms, grads, 0.1)
        lists._foreach_sign_(u)
        lists._foreach_add_(params, u, alpha=-lr)
        lists._foreach_lerp_(ms, grads, 0.01)

    return step


def contenders(name: str, count: int = COUNT, shape: tuple[int, ...] = SHAPE) -> Ways:
    """Return a step of funcnet's and of torch's optimizer, from the same params and gradients; each returns the params."""
    optimizer, make = optimizers()[name]
    params: list[Tensor] = [torch.nn.Parameter(p) for p in tensors(0, count, shape)]
    grads = tensors(1, count, shape)
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    step = make(params)
    return {"funcnet": of_funcnet(optimizer, tensors(0, count, shape), grads), "torch": lambda: (step(), params)[1]}


def cases() -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the tables that compare with torch."""
    for name in optimizers():
        yield name, contenders(name)


def cases_of_ours(count: int = COUNT, shape: tuple[int, ...] = SHAPE) -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the table of optimizers that torch lacks."""
    grads = tensors(1, count, shape)
    for name in OURS_ONLY:
        optimizers = {"step": getattr(fn, name)(lr=1e-3), "AdamW": fn.AdamW(lr=1e-3)}
        yield name, {way: of_funcnet(one, tensors(0, count, shape), grads) for way, one in optimizers.items()}


def page(rounds: int, threads: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the page, with a table for each number of threads."""
    words = {"millions": 1e-6 * COUNT * SHAPE[0] * SHAPE[1], "count": COUNT, "shape": SHAPE}
    words |= {"rounds": rounds, "threads": " ".join(map(str, threads))}
    yield HEAD.format(torch=torch.__version__, processor=processor(), **words)
    for count in threads:
        yield f"\n## On {count} thread{'s' * (count > 1)}\n"
        yield from turns.table(cases(), QUOTIENTS, rounds, count)
    yield OTHERS
    yield from turns.table(cases_of_ours(), QUOTIENTS_OF_OURS, rounds)
    yield MATRICES
    yield from turns.table(muon.cases(), muon.QUOTIENTS, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all tables, and print or write the page."""
    parser = new_parser("optimizers", __doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="number of rounds, with one turn per contender")
    parser.add_argument("--threads", type=positive, nargs="+", default=THREADS, help="numbers of threads to measure with")
    parser.add_argument("--page", type=file, help="file to write the page to")
    options = parser.parse_args(arguments)
    lines = printed(page(options.rounds, options.threads))
    if options.page:
        options.page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_command(main)
