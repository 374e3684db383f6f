"""Elastic training: a worker is killed, the job continues from the last checkpoint, and the params have the same bits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed.launching import outcomes, run

from examples.faults.elastic import EVERY, STEPS, batch, killer, train
from funcnet.distributed import Checkpoints, WorkerError, shard_rows

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""torchrun gives restarted workers the old store, in which gloo can find the addresses of killed workers."""


def undisturbed(folder: str, dropout: float = 0.2, steps: int = STEPS) -> str:
    return train(folder, dropout, steps=steps)


def killed(folder: str, rank: int, number: int) -> str:
    return train(folder, at=killer(rank, number))


def test_a_job_of_torchrun_goes_on_when_a_worker_was_killed(tmp_path: Path) -> None:
    """The bits are those of an undisturbed run."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["-m", "examples.faults.elastic", "--folder", str(tmp_path / "job"), "--kill", "1", "10"]
    ended = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=1800, check=False)
    expected = run(2, undisturbed, str(tmp_path / "undisturbed"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"restarts 1, digest {expected[0]}"
    assert expected[0] == expected[1]


def test_four_workers_go_on_with_the_same_bits(tmp_path: Path) -> None:
    """There are two kills, and the other workers name the rank."""
    expected = run(4, undisturbed, str(tmp_path / "undisturbed"))
    job = str(tmp_path / "job")
    for rank, number in ((2, 10), (0, 17)):
        found: list[Any] = outcomes(4, killed, job, rank, number, lost=(rank,))
        survivors = [one for i, one in enumerate(found) if i != rank]
        assert all(isinstance(one, WorkerError) and one.missing == (rank,) for one in survivors), survivors
        assert Checkpoints(job).latest() == number // EVERY * EVERY
    assert run(4, undisturbed, job) == expected


def test_two_workers_and_one_go_on_from_four(tmp_path: Path) -> None:
    """They agree with four workers to 1e-12, because data and keys do not depend on the number of workers."""
    run(4, undisturbed, str(tmp_path / "four"), 0.0)
    for size, until in ((4, 8), (2, 16), (1, STEPS)):
        run(size, undisturbed, str(tmp_path / "fewer"), 0.0, until)
    one, two = (Checkpoints(tmp_path / name).load(STEPS) for name in ("four", "fewer"))
    for layer in ("0", "3"):
        for name in ("weight", "bias"):
            difference = one[0][int(layer)][name] - two[0][int(layer)][name]
            assert difference.abs().max() < 1e-12


def rows(number: int) -> list[list[float]]:
    return shard_rows(batch(number))[0].tolist()


def test_the_order_of_the_data_does_not_depend_on_the_number_of_workers() -> None:
    """The workers' rows, in order, are the batch."""
    whole = batch(7)[0].tolist()
    for size in (1, 2, 4):
        assert [row for found in run(size, rows, 7) for row in found] == whole
    assert not torch.equal(batch(2)[0], batch(7)[0])
    assert dist.is_available()
