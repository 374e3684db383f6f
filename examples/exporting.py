"""Export: a whole training step as a file, which runs in a process that cannot import funcnet.

A net learns digits for some epochs. Then its training step, with dropout, running statistics, AdamW and a schedule, is exported
as a program of ``torch.export`` and as a package of machine code made with AOTInductor. Another process, in which ``import
funcnet`` fails, continues training with each file: 20 steps on new batches. Its losses are compared with the eager step's, and
its time per step with eager mode and ``fn.compile``. A program of ``torch.export`` is portable but slow: Python calls each of its
operations, and every call checks its arguments.

    python -m examples.exporting --epochs 3 --seed 0 --out out
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.contract import Params
from funcnet.optim.base import State
from funcnet.random.keys import Key

ROWS, STEPS, TIMED = 50, 20, 200

net = fn.serial(fn.Flatten(), fn.Linear(64, 64, bias=False), fn.BatchNorm1d(64), fn.ReLU(), fn.Dropout(0.2), fn.Linear(64, 10))
loss = fn.CrossEntropy()
opt = fn.chain(fn.ClipByGlobalNorm(1.0), fn.AdamW(fn.CosineSchedule(3e-3, 500)))
step = fn.train_step(net, loss, opt)

RUNNER = """
import sys
from time import perf_counter

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "funcnet":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import torch

torch.set_num_threads(1)
kind, package, given, made, timed = sys.argv[1:]
step = torch.export.load(package).module() if kind == "program" else torch._inductor.aoti_load_package(package)
params, state, batches = torch.load(given)
values = []
for x, target, key in batches:
    params, state, value = step(params, state, x, target, key)
    values.append(value)
start = perf_counter()
for _ in range(int(timed)):
    step(params, state, x, target, key)
torch.save((torch.stack(values), (perf_counter() - start) / int(timed)), made)
"""


def batches(images: Tensor, labels: Tensor, rng: Key, count: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches in a random order, each with a key for dropout."""
    order = fn.random.permutation(rng, len(labels))
    for i in range(count):
        rows = order[torch.arange(i * ROWS, (i + 1) * ROWS) % len(labels)]
        yield images[rows], labels[rows], fn.fold_in(rng, i)


def train(
    call: Callable[..., Any], params: Params, state: State, data: Iterable[tuple[Tensor, ...]]
) -> tuple[Params, State, Tensor]:
    """Train with a step; return params, state, and the loss of each batch."""
    values = []
    for x, target, key in data:
        params, state, value = call(params, state, x, target, key)
        values.append(value)
    return params, state, torch.stack(values)


def elsewhere(kind: str, package: Path, given: Any, folder: Path, timed: int) -> Any:
    """Run a package in a process without funcnet; return the losses and the seconds per step."""
    made = folder / "made.pt"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNNER, kind, str(package), str(given), str(made), str(timed)], check=True
    )
    return torch.load(made)


def seconds(call: Callable[..., Any], arguments: Any, timed: int) -> float:
    """Time a call after a warm-up call, which can compile."""
    call(*arguments)
    start = perf_counter()
    for _ in range(timed):
        call(*arguments)
    return (perf_counter() - start) / timed


def main(given: list[str] | None = None) -> None:
    """Train, export, and continue without funcnet."""
    others = {"compiled": (1, "1 to make the package of machine code too, 0 to skip it")}
    options = common.arguments(__doc__, given, others, resumable=False, epochs=3)
    options.out.mkdir(parents=True, exist_ok=True)
    (images, labels), _ = common.digits(fn.key(options.seed))
    params = net.init(fn.key(options.seed))
    state = opt.init(params)
    for epoch in range(options.epochs):
        params, state, values = train(step, params, state, batches(images, labels, fn.key(epoch), len(labels) // ROWS))
        print(f"epoch {epoch + 1}: loss {values.mean():.4f}")

    data, file = [*batches(images, labels, fn.key(options.epochs), STEPS)], options.out / "exporting.pt"
    torch.save((params, state, data), file)
    _, _, wanted = train(step, params, state, data)
    timed = TIMED if options.compiled else 2
    rows = {"eager": (wanted, seconds(step, (params, state, *data[0]), timed))}
    if options.compiled:
        fast = fn.compile(step)
        rows["fn.compile"] = (train(fast, params, state, data)[2], seconds(fast, (params, state, *data[0]), timed))
    for kind in ("program", "compiled")[: 1 + bool(options.compiled)]:
        package = options.out / f"exporting_{kind}.pt2"
        start = perf_counter()
        fn.export(step, (params, state, *data[0]), package, batch=("x", "target"), compiled=kind == "compiled")
        print(f"exported in {perf_counter() - start:.1f} s: {package}, {package.stat().st_size // 1024} KiB")
        rows[f"{kind}, without funcnet"] = elsewhere(kind, package, file, options.out, timed)

    print(f"\n{'a step of ' + str(ROWS) + ' digits':28}{'µs':>8}{'largest difference of 20 losses':>34}")
    for name, (values, taken) in rows.items():
        print(f"{name:28}{taken * 1e6:8.0f}{(values - wanted).abs().max().item():34.1e}")


if __name__ == "__main__":
    main()
