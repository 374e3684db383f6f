"""The checks after a fault: it must leave complete checkpoints, and the repeated call must end like an undisturbed training."""

import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.faults.children import Ended, Report, run
from examples.faults.trainings import leftovers, newest, tensors, train


class Judge:
    """Runs trainings, each in its own folder, and compares them with an undisturbed one.

    Attributes:
        folder: The parent of the folders.
        random: The seeded generator for the moments and places of faults.
        seconds: The duration of the undisturbed training.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """Run and time the undisturbed training."""
        self.folder, self.random = folder, random.Random(seed)
        self._digests: dict[Callable[[], Any], str] = {}
        self._count = 0
        began = time.monotonic()
        self.expected(tensors)
        self.seconds = time.monotonic() - began

    def expected(self, data: Callable[[], Any]) -> str:
        """Return the digest of an undisturbed training with this data."""
        if data not in self._digests:
            folder = self.new_folder()
            self._digests[data] = _digest(run(lambda report: train(folder, report, data())))
        return self._digests[data]

    def new_folder(self, like: Path | None = None) -> Path:
        """Return the path of a new folder, or of a copy of another."""
        self._count += 1
        folder = self.folder / f"{self._count:05d}"
        return folder if like is None else Path(shutil.copytree(like, folder))

    def begun(self, epochs: int = 2, data: Callable[[], Any] = tensors) -> Path:
        """Return a folder with the checkpoints of the first epochs."""
        folder = self.new_folder()
        ended = run(lambda report: train(folder, report, data(), epochs=epochs))
        if ended.code:
            raise RuntimeError(ended.error)
        return folder

    def losses_again(self, folder: Path, data: Callable[[], Any] = tensors) -> list[str]:
        """Repeat the call, and describe its differences from the undisturbed training."""
        return difference(run(lambda report: train(folder, report, data())), self.expected(data))

    def struck(self, folder: Path, work: Callable[[Report], Any], error: str, data: Callable[[], Any] = tensors) -> list[str]:
        """Train in a folder with a fault, which must end with an error, and then without it; describe losses."""
        known = newest(folder) or 0
        return losses(folder, run(work), error, known) + self.losses_again(folder, data)


def losses(folder: Path, ended: Ended, error: str, known: int = 0) -> list[str]:
    """Describe what a fault broke: a saved step was lost, the error does not match ``error``, or temporary files are left."""
    known, kept = max([known, *map(int, ended.reported("saved"))]), newest(folder) or 0
    found = [f"step {known} was saved, the newest checkpoint is {kept}"] * (kept < known)
    found += [f"it ended with {ended.error or 'no error'!r}, not with {error!r}"] * (not re.search(error, ended.error))
    return found + [f"it left {', '.join(leftovers(folder))}"] * bool(leftovers(folder))


def difference(ended: Ended, expected: str) -> list[str]:
    """Describe how a finished training differs from the undisturbed one."""
    if ended.code:
        return [f"the repeated call ended with {ended.error or ended.code}"]
    return [] if _digest(ended) == expected else ["the repeated call gave other bits"]


def _digest(ended: Ended) -> str:
    if ended.code:
        raise RuntimeError(f"the undisturbed training ended with {ended.error or ended.code}")
    (found,) = ended.reported("digest")
    return found
