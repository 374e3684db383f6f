"""Interruptions from within: Ctrl-C, NaN, a diverging training, a dying data worker, and a callback that raises an error."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

import funcnet as fn
from examples.faults.children import Child, Report, run
from examples.faults.judging import Judge, losses
from examples.faults.table import Row, repeated, row_of
from examples.faults.trainings import EPOCHS, ROWS, STEPS, fresh_params, loader, opt, schedule, tensors, train


def ctrl_c(judge: Judge, count: int) -> Row:
    """Interrupt the training at random moments; the caller's params must not change."""

    def once() -> list[str] | None:
        """Return ``None`` if the training was faster."""
        folder = judge.new_folder()

        def interrupted(report: Report) -> Any:
            params, before = fresh_params(), fresh_params()
            try:
                return train(folder, report, params=params)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a late signal is outside the training
                report(f"params {fn.tree.equal(params, before)}")

        child = Child(interrupted)
        child.wait(lambda: child.has("started"))
        time.sleep(judge.random.uniform(0, judge.seconds))
        child.kill(signal.SIGINT)
        ended = child.ended()
        if not ended.code:
            return None
        found = losses(folder, ended, "KeyboardInterrupt")
        found += ["the caller's params have changed"] * (ended.reported("params") != ["True"])
        return found + judge.losses_again(folder)

    tries: list[list[str]] = []
    while len(tries) < count:
        tries += [one for one in [once()] if one is not None]
    return row_of("Ctrl-C", tries, "`fit` raises `KeyboardInterrupt`; the caller's params and the last checkpoint are whole")


def nan_in_the_data(judge: Judge, count: int) -> Row:
    """Put a NaN into one pixel."""

    def once() -> list[str]:
        x, target = tensors()
        x[judge.random.randrange(ROWS), 0, judge.random.randrange(8), judge.random.randrange(8)] = torch.nan
        return _diverging(judge, lambda report, folder: train(folder, report, (x, target)))

    happens = "`fit` raises `FloatingPointError` with the step and the first leaf that is not finite; it saves no such params"
    return repeated("NaN in the data", count, once, happens)


def divergence(judge: Judge, count: int) -> Row:
    """Make the learning rate enormous from some step on; very large params can be saved before the loss overflows."""

    def once() -> list[str]:
        at = judge.random.randrange(STEPS - 1)  # at the last step it would be too late
        wild = fn.LambdaSchedule(lambda step: schedule(step) if step < at else 1e38)
        return _diverging(judge, lambda report, folder: train(folder, report, opt=opt.replace(lr=wild)), at)

    happens = "the same; an earlier checkpoint is kept, from which the call continues"
    return repeated("A training that diverges", count, once, happens)


def _diverging(judge: Judge, work: Callable[[Report, Path], Any], at: int = STEPS) -> list[str]:
    """Train until a number is not finite, then, without the fault, from the newest checkpoint to step ``at``; describe losses."""
    folder = judge.new_folder()
    ended = run(lambda report: work(report, folder))
    found = losses(folder, ended, "FloatingPointError: fit")
    said = re.search(r"in step \d+ of epoch \d.*first bad leaf: '\w", ended.error)
    found += [f"the error only says {ended.error}"] * (said is None)
    checkpoints = fn.Checkpoints(folder)
    found += [
        f"step {step} is not finite" for step in checkpoints.steps() if not fn.tree.all_finite(checkpoints.load(step)["params"])
    ]
    saved = [step for step in map(int, ended.reported("saved")) if step <= at]
    found += ["no earlier checkpoint is left"] * (saved != [] and saved[-1] not in checkpoints.steps())
    for path in [path for path in folder.glob("*.fn") if int(path.stem[5:]) > at]:
        path.unlink()
    return found + judge.losses_again(folder)


class Mortal(Dataset[Any]):
    """The data; one row kills the process that reads it, as long as a file exists."""

    def __init__(self, death: Path, at: int) -> None:
        """Kill at the row ``at`` while the file ``death`` exists."""
        self.death, self.at, self.data = death, at, tensors()

    def __len__(self) -> int:
        """Count the rows."""
        return ROWS

    def __getitem__(self, i: int) -> Any:
        """Return a row, or kill this process."""
        if i == self.at and self.death.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data[0][i], self.data[1][i]


def dying_worker(judge: Judge, count: int) -> Row:
    """Kill a worker process of the data, in the third epoch."""
    begun, error = judge.begun(data=loader), "RuntimeError: DataLoader worker|ConnectionResetError|EOFError"

    def once() -> list[str]:
        folder = judge.new_folder(like=begun)
        mortal = Mortal(folder / "death", judge.random.randrange(ROWS))
        mortal.death.touch()
        return judge.struck(folder, lambda report: train(folder, report, loader(mortal)), error, loader)

    return repeated("A data worker that dies", count, once, "`fit` raises the error of the `DataLoader`")


def raising_callback(judge: Judge, count: int) -> Row:
    """Raise in a callback after some epoch."""

    def once() -> list[str]:
        folder, number = judge.new_folder(), judge.random.randint(1, EPOCHS)

        def callback(epoch: fn.Epoch) -> None:
            if epoch.number == number:
                raise RuntimeError("of the callback")

        return judge.struck(folder, lambda report: train(folder, report, callbacks=[callback]), "RuntimeError: of the callback")

    return repeated("A callback that raises", count, once, "`fit` raises its error; the earlier steps are saved")
