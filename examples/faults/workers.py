"""Faults of workers: one is killed, hangs, starts with different params, or loses write permission; then the job is restarted.

A job consists of a few forked workers that form a gloo group, and end together after a failure, as with torchrun.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import funcnet as fn
from examples.faults import elastic
from examples.faults.children import Child, Ended, Report
from examples.faults.judging import Judge
from examples.faults.table import Row, row_of
from funcnet import distributed

SIZE = 3
TIMEOUT = 60.0
"""Seconds after which a collective has failed; on a busy machine, workers may be far apart."""

SHORT = 10.0
"""The timeout of a group in which a worker hangs."""

NOBODY = 65534

Act = Callable[[int, int], object]
"""A function of the rank and the step's number that a worker calls before each step."""

Kill = Callable[[list[Child]], object]
"""A function that kills a worker of a running job."""


@dataclass
class Job:
    """Workers that train in a folder; ``seconds`` is the time until they ended."""

    ended: list[Ended]
    seconds: float

    @property
    def digests(self) -> set[str]:
        """Return the digests of params reported by the workers that finished."""
        return {one.reported("digest")[0] for one in self.ended if one.reported("digest")}


def job(folder: Path, act: Act = lambda rank, number: None, kill: Kill = lambda workers: None, timeout: float = TIMEOUT) -> Job:
    """Run a job to its end: a training from the newest checkpoint of the folder on."""

    def work(rank: int, report: Report) -> None:
        def at(number: int) -> None:
            report(f"step {number}")
            act(rank, number)

        report(f"digest {elastic.train(folder, at=at)}")

    return together(work, kill, timeout)


def together(work: Callable[[int, Report], object], kill: Kill = lambda workers: None, timeout: float = TIMEOUT) -> Job:
    """Run a function on workers in a common group."""
    with tempfile.TemporaryDirectory() as meeting:
        Path(meeting).chmod(0o777)
        began = time.monotonic()
        workers = [Child(_meeting(rank, f"{meeting}/store", work, timeout)) for rank in range(SIZE)]
        try:
            kill(workers)
            ended = [one.ended() for one in workers]
        finally:
            for one in workers:
                one.end_group()
        return Job(ended, time.monotonic() - began)


def _meeting(rank: int, store: str, work: Callable[[int, Report], object], timeout: float) -> Callable[[Report], None]:
    def run(report: Report) -> None:
        torch.set_num_threads(1)
        given: dict[str, Any] = {"rank": rank, "world_size": SIZE, "timeout": timedelta(seconds=timeout)}
        dist.init_process_group("gloo", init_method=f"file://{store}", **given)
        if not rank:
            Path(store).chmod(0o666)  # one worker becomes another user
        work(rank, report)

    return run


def _losses(folder: Path, found: Job, error: str, lost: set[int], expected: set[str]) -> list[str]:
    """Describe what a fault broke, including after a restart; all workers except ``lost`` must raise ``error``."""
    said = [
        f"rank {rank} ended with {one.error or one.code!r}, not with {error!r}"
        for rank, one in enumerate(found.ended)
        if rank not in lost and not re.search(error, one.error)
    ]
    said += [f"it took {found.seconds:.0f} s to end"] * (found.seconds > 2 * TIMEOUT)
    steps = [int(step) for one in found.ended for step in one.reported("step")]
    known, kept = max(steps, default=0) // elastic.EVERY * elastic.EVERY, distributed.Checkpoints(folder).latest() or 0
    said += [f"step {known} was saved, the newest checkpoint is {kept}"] * (kept < known)
    return said + _again(folder, expected)


def _again(folder: Path, expected: set[str]) -> list[str]:
    """Restart the job, and describe how it differs from an undisturbed one."""
    again = job(folder)
    said = [f"after the restart a worker ended with {one.error or one.code}" for one in again.ended if one.code]
    left = [path.name for path in folder.glob(".*")]
    said += [f"it left {', '.join(left)}"] * bool(left)
    return said + ["the restarted job gave other bits"] * (again.digests != expected or len(expected) != 1)


def _naming(rank: int) -> str:
    """Return the pattern of an error that names a rank, perhaps together with one that still waits in torch's checkpoints."""
    return rf"WorkerError: .*no response from ranks? (\d, )*{rank}(, \d)* within"


def kills(judge: Judge, count: int) -> Row:
    """Kill a worker at random moments, from another process."""
    undisturbed = job(judge.new_folder())
    expected = undisturbed.digests

    def once() -> list[str]:
        folder, rank = judge.new_folder(), judge.random.randrange(SIZE)

        def kill(workers: list[Child]) -> None:
            workers[0].wait(lambda: workers[0].has("step 0"))
            time.sleep(judge.random.uniform(0, undisturbed.seconds / 2))
            killed.append(workers[rank].kill())

        killed: list[bool] = []
        found = job(folder, kill=kill)
        if not killed[0] or found.digests:  # all steps were done
            return _again(folder, expected)
        return _losses(folder, found, _naming(rank), {rank}, expected)

    happens = "the others raise `WorkerError`, which names the rank; the restarted job gives the same bits as an undisturbed one"
    return row_of(f"One of {SIZE} workers is killed", [once() for _ in range(count)], happens)


def hangs(judge: Judge, count: int) -> Row:
    """Make a worker sleep before some step for longer than the timeout."""
    expected = job(judge.new_folder()).digests

    def once() -> list[str]:
        folder, rank, at = judge.new_folder(), judge.random.randrange(SIZE), judge.random.randrange(elastic.STEPS)

        def act(here: int, number: int) -> None:
            if (here, number) == (rank, at):
                time.sleep(2.5 * SHORT)

        found = job(folder, act, timeout=SHORT)
        return _losses(folder, found, _naming(rank), {rank}, expected)

    happens = "the others raise `WorkerError` with the rank, at the latest after one and a half timeouts of the group"
    return row_of("A worker hangs", [once() for _ in range(count)], happens)


def other_params(judge: Judge, count: int) -> Row:
    """Give one worker different params."""

    def once() -> list[str]:
        rank = judge.random.randrange(1, SIZE)
        found = together(lambda here, report: _other_params(is_other=here == rank)).ended
        rule = rf"ValueError: data_parallel: .*'0\.bias' differs.* on rank {rank} than on rank 0"
        return [f"it ended with {one.error!r}" for one in found if not re.search(rule, one.error)]

    happens = "every worker raises `ValueError` at the first step, with the path and the rank"
    return row_of("A worker starts with different params", [once() for _ in range(count)], happens)


def _other_params(*, is_other: bool) -> None:
    net, opt = elastic.net_of(0.0), fn.SGD(lr=0.1)
    params = fn.tree.cast(net.init(5), torch.float64)
    if is_other:
        params = fn.tree.replace(params, "0.bias", params[0]["bias"] + 1e-9)
    step = distributed.data_parallel(fn.train_step(net, fn.CrossEntropy(), opt))
    step(params, opt.init(params), *distributed.shard_rows(elastic.batch(0)))


def unwritable(judge: Judge, count: int) -> Row:
    """Remove a worker's write permission before its second save."""
    expected = job(judge.new_folder()).digests

    def once() -> list[str]:
        folder, rank = judge.new_folder(), judge.random.randrange(SIZE)

        def act(here: int, number: int) -> None:
            if number == elastic.EVERY and here == rank:
                vars(fn)  # imports all modules, which the other user cannot read
                os.setuid(NOBODY)

        found = job(folder, act)
        error = rf"PermissionError: .*(Errno 13|PermissionError).*on rank {rank}"
        return _losses(folder, found, error, set(), expected)

    fault = "The checkpoint folder is unwritable for one worker"
    if os.geteuid():
        return Row(fault, 0, [], "not tried, since this process must not become another user")
    happens = "every worker raises `OSError` with the rank; the previous checkpoint stays, and the job continues from it"
    return row_of(fault, [once() for _ in range(count)], happens)
