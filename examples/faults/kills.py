"""SIGKILL at random moments of a training that saves; the same call is repeated until it ends."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.faults.children import Child, Ended
from examples.faults.judging import Judge, difference
from examples.faults.table import Row, row_of
from examples.faults.trainings import leftovers, loader, newest, tensors, train


@dataclass
class Chain:
    """A training that was killed several times.

    Attributes:
        kills: Number of kills.
        torn: Number of kills within a save, which left a temporary file.
        known: The newest step that was reported as saved.
        lost: Descriptions of losses.
    """

    kills: int = 0
    torn: int = 0
    known: int = 0
    lost: list[str] = field(default_factory=list)

    def killed(self, folder: Path, ended: Ended) -> None:
        """Check the state after a kill."""
        self.kills += 1
        self.torn += bool(leftovers(folder))
        self.known = max([self.known, *map(int, ended.reported("saved"))])
        kept = newest(folder) or 0
        self.lost += [f"step {self.known} was saved, the newest checkpoint is {kept}"] * (kept < self.known)


def chain(judge: Judge, most: int, data: Callable[[], Any] = tensors, *, background: bool = False) -> Chain:
    """Kill a training up to ``most`` times, then train to the end; the workers of killed trainings keep running meanwhile."""
    found, folder, children = Chain(), judge.new_folder(), []
    expected = judge.expected(data)
    while True:
        children.append(Child(lambda report: train(folder, report, data(), background=background)))
        if found.kills < most:
            time.sleep(judge.random.uniform(0, judge.seconds / 2))
            children[-1].kill()
        ended = children[-1].ended()
        if ended.code != -signal.SIGKILL:
            break
        found.killed(folder, ended)
    for child in children:
        child.end_group()
    left = leftovers(folder)
    found.lost += difference(ended, expected) + [f"it left {', '.join(left)}"] * bool(left)
    return found


def kills(judge: Judge, count: int) -> Row:
    """Kill trainings ``count`` times, each up to ten times."""
    chains: list[Chain] = []
    while (left := count - sum(one.kills for one in chains)) > 0:
        chains.append(chain(judge, min(10, left)))
    torn = sum(one.torn for one in chains)
    happens = f"{torn} kills within a save; the same call continues from the newest checkpoint and gives the same bits"
    return Row("SIGKILL", count, [what for one in chains for what in one.lost], happens)


def kills_with_workers(judge: Judge, count: int) -> Row:
    """Kill ``count`` trainings with two data workers, up to three times each."""
    return _trainings(judge, count, "SIGKILL, with 2 data workers", "also within an epoch", data=loader)


def kills_in_the_background(judge: Judge, count: int) -> Row:
    """Kill ``count`` trainings that save in a thread, up to three times each."""
    return _trainings(judge, count, "SIGKILL, with saves in the background", "also from a thread", background=True)


def _trainings(judge: Judge, count: int, fault: str, how: str, **options: Any) -> Row:
    """Kill trainings; a training that ended before the first kill does not count, unless it lost something."""
    chains: list[Chain] = []
    while len(chains) < count:
        one = chain(judge, judge.random.randint(1, 3), **options)
        chains += [one] * bool(one.kills or one.lost)
    happens = f"the same, {how}: {sum(one.kills for one in chains)} kills, and each training ended with the same bits"
    return row_of(fault, [one.lost for one in chains], happens)
