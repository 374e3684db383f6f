"""Disks and folders: no space left, no permission, and two processes in one folder."""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import funcnet as fn
from examples.faults.children import Child, Report, run
from examples.faults.judging import Judge, difference, losses
from examples.faults.table import Row, repeated, row_of
from examples.faults.trainings import KEEP, newest, tensors, train

_NOBODY = 65534
_FULL = "`fit` raises `OSError`; nothing of the file is left"


def _size(folder: Path) -> int:
    """Return the bytes of the largest checkpoint."""
    return max(path.stat().st_size for path in folder.glob("*.fn"))


def file_too_large(judge: Judge, count: int) -> Row:
    """Limit the size of files to less than the size of a checkpoint."""
    begun = judge.begun()

    def once() -> list[str]:
        folder, limit = judge.new_folder(like=begun), judge.random.randrange(_size(begun))

        def limited(report: Report) -> Any:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return train(folder, report)

        return judge.struck(folder, limited, r"OSError: \[Errno 27\]")

    return repeated("A file larger than the system allows", count, once, _FULL)


def full_disk(judge: Judge, count: int) -> Row:
    """Train on a small file system in memory, which is full after some checkpoints; then enlarge it."""
    size = _size(judge.begun())

    def once() -> list[str] | None:
        folder = judge.new_folder()
        with _mounted(folder, judge.random.randrange(size, (KEEP + 1) * size)) as enlarge:
            if enlarge is None:
                return None
            found = losses(folder / "in", run(lambda report: train(folder / "in", report)), r"OSError: \[Errno 28\]")
            enlarge()
            return found + judge.losses_again(folder / "in")

    tries = [once() for _ in range(count)]
    if None in tries:
        return Row("A full disk", 0, [], "not tried, since this process must not mount a file system")
    return row_of("A full disk", [one for one in tries if one is not None], _FULL)


@contextmanager
def _mounted(folder: Path, size: int) -> Iterator[Callable[[], Any] | None]:
    """Mount a file system of some bytes, and yield a function that enlarges it, or ``None`` if mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def unwritable_folder(judge: Judge, count: int) -> Row:
    """Remove the write permission: before the training, and after it has its lock."""
    begun = judge.begun()

    def once(*, locked: bool) -> list[str]:
        folder = judge.new_folder(like=begun)
        (folder / ".lock").chmod(0o666)
        if not locked:
            (folder / ".lock").unlink()

        def as_nobody(report: Report) -> Any:
            vars(fn)  # imports all modules, which the other user cannot read
            if os.geteuid() == 0:  # permissions do not apply to root
                os.setuid(_NOBODY)
            return train(folder, report)

        folder.chmod(0o555)
        found = losses(folder, run(as_nobody), "PermissionError", newest(folder) or 0)
        folder.chmod(0o755)
        return found + judge.losses_again(folder)

    happens = "`fit` raises `PermissionError`, before the first step if it cannot lock the folder"
    return row_of("An unwritable folder", [once(locked=i % 2 == 0) for i in range(2 * count)], happens)


def two_trainings(judge: Judge, count: int) -> Row:
    """Make the same call while it is running."""

    def once() -> list[str]:
        folder = judge.new_folder()

        def wait(epoch: fn.Epoch) -> None:
            while not (folder / "go on").exists():
                time.sleep(0.005)

        first = Child(lambda report: train(folder, report, callbacks=[wait]))
        first.wait(lambda: first.has("saved"))
        error = run(lambda report: train(folder, report)).error
        (folder / "go on").touch()
        said = [] if "another process is training with this folder" in error else [f"the second ended with {error or 'no error'}"]
        return said + difference(first.ended(), judge.expected(tensors))

    happens = "the second raises a `ValueError` that names the process of the first, which continues"
    return repeated("A second training with the folder", count, once, happens)


def two_savers(judge: Judge, count: int) -> Row:
    """Save from two processes at once, one the even steps and one the odd steps."""

    def once() -> list[str]:
        checkpoints = fn.Checkpoints(judge.new_folder(), None)

        def save(first: int, report: Report) -> None:
            for step in range(first, 20, 2):
                checkpoints.save(step, (step, *tensors()))

        children = [Child(partial(save, first)) for first in (0, 1)]
        found = [child.ended().error for child in children]
        steps = checkpoints.steps()
        found += [f"of 20 steps only {steps} were saved"] * (steps != [*range(20)])
        found += [f"step {step} has the tree of another step" for step in steps if checkpoints.load(step)[0] != step]
        return [one for one in found if one]

    return repeated("Two processes that save at once", count, once, "each save waits for the other; every file is whole")
