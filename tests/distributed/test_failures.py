"""Failures: the error of every worker names the missing workers, and quotes the errors of others."""

import functools
import json
import os
import pickle
import signal
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed.launching import outcomes, run, wait_for_all

from funcnet.distributed import failures, posts
from funcnet.distributed.failures import WorkerError, explaining_failures
from funcnet.distributed.workers import Workers, gather_objects, sum_over, workers_of

LONG = 60.0
"""The timeout of a group in seconds, where a wait for it would be an error."""


def collective(workers: Workers) -> float:
    with explaining_failures(workers, "a step"):
        return float(sum_over(workers, torch.ones(3)).wait()[0])


def killed(lost: int) -> float:
    workers = workers_of("test")
    collective(workers)
    if workers.rank == lost:
        os.kill(os.getpid(), signal.SIGKILL)
    return collective(workers)


def test_the_survivors_of_a_kill_name_the_rank() -> None:
    """Even a worker without a broken connection names it."""
    found = outcomes(4, killed, 2, lost=(2,))
    for rank in (0, 1, 3):
        error: Any = found[rank]
        assert isinstance(error, WorkerError), error
        assert str(error).startswith(
            "a step: all 4 workers must take part in each collective, got no response from rank 2 within 3 s"
        )
        assert (error.missing, error.raised) == ((2,), {})


def hanging(lost: int) -> float:
    """Hang on one worker; the timeout is short only then, since workers may be late for the first collective."""
    workers = workers_of("test")
    collective(workers)
    if workers.rank == lost:
        time.sleep(600)
    dist.distributed_c10d._get_default_store().set_timeout(timedelta(seconds=2))
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2))
    return collective(workers)


def test_a_hung_worker_is_named_after_the_timeout() -> None:
    """The timeout is 2 seconds, followed by a grace period of one."""
    found: list[Any] = outcomes(2, hanging, 0, lost=(0,))
    assert isinstance(found[1], WorkerError)
    assert found[1].missing == (0,)
    assert "got no response from rank 0 within 1 s: killed, hanging, unreachable or still busy" in str(found[1])


def raising(*, late: bool) -> tuple[float, tuple[int, ...], dict[int, str], float]:
    """Fail equally on all workers, then on one, which continues; the others must not wait until the timeout.

    Afterwards no worker can make a step: the next sum of rank 1 would be matched with the one that the others have started. Rank
    1 tries it immediately or, if ``late``, when the others have failed once more.
    """
    workers = workers_of("test")
    for _ in range(2):
        with (
            pytest.raises(ValueError, match="on all"),
            explaining_failures(workers, "outer"),
            explaining_failures(workers, "inner"),
        ):
            raise ValueError("on all")
    value = collective(workers)
    start = time.monotonic()
    if workers.rank == 1:
        with pytest.raises(ValueError, match="rows"), explaining_failures(workers, "a step"):
            raise ValueError("rows of another size")
        if late:
            wait_for_all("failed again")
        with pytest.raises(WorkerError, match="a step: after a failed collective the workers are out of step"):
            collective(workers)
        wait_for_all("end")
        return value, (), {}, 0.0
    with pytest.raises(WorkerError) as told:
        collective(workers)
    seconds = time.monotonic() - start
    with pytest.raises(WorkerError, match="a step: after a failed collective the workers are out of step"):
        collective(workers)
    if late:
        wait_for_all("failed again")
    wait_for_all("end")
    return value, told.value.missing, told.value.raised, seconds


@pytest.mark.parametrize("late", [False, True])
def test_the_error_of_one_worker_reaches_the_others_at_once(late: bool) -> None:
    """Its message reaches them while it continues to run; earlier errors of all workers do not matter."""
    for rank, (value, missing, raised, seconds) in enumerate(run(4, functools.partial(raising, late=late), timeout=LONG)):
        assert value == 4.0
        if rank != 1:
            assert (missing, raised) == ((), {1: "ValueError: rows of another size"})
            assert seconds < LONG


def gathering() -> str:
    """Fail on one worker before the other waits to exchange objects, which is not watched itself."""
    workers = workers_of("test")
    if workers.rank == 1:
        with pytest.raises(ValueError, match="rows"), explaining_failures(workers, "a step"):
            raise ValueError("rows of another size")
    wait_for_all("failed")
    if workers.rank == 0:
        with pytest.raises(WorkerError) as error, explaining_failures(workers, "a step"):
            gather_objects(workers, 1)
    wait_for_all("end")
    return "" if workers.rank else str(error.value)


def test_an_error_reaches_workers_that_exchange_objects() -> None:
    """It arrives long before the timeout of the group."""
    assert run(2, gathering)[0].endswith("rank 1 raised ValueError: rows of another size")


def test_the_end_of_the_process_waits_for_threads_that_ask_a_store() -> None:
    """Python aborts the process if such a thread returns from C++ during shutdown."""
    waiting = posts.asked(lambda: time.sleep(0.3))
    posts._finish_asking()
    assert waiting.done()
    assert not posts._asking


class UnspeakableError(Exception):
    """An error whose message cannot be computed."""

    def __str__(self) -> str:
        raise LookupError


def test_every_error_can_be_told() -> None:
    """The message can be missing or very long."""
    assert failures._worded(UnspeakableError()) == "UnspeakableError, whose message raises LookupError"
    assert len(failures._worded(ValueError("x" * 10**6))) < 600


def untouched() -> int:
    """Count the calls of the store in a successful step."""
    workers = workers_of("test")
    collective(workers)
    before = dist.distributed_c10d._get_default_store().num_keys()
    collective(workers)
    return int(dist.distributed_c10d._get_default_store().num_keys() - before)


def test_a_step_that_works_leaves_the_store_alone() -> None:
    """No key is created."""
    assert run(2, untouched) == [0, 0]


def started_again() -> tuple[float, tuple[int, ...]]:
    """Continue with a store that has the post of killed workers, as after a restart by torchrun."""
    workers, store = workers_of("test"), dist.distributed_c10d._get_default_store()
    if workers.rank == 0:
        store.set("funcnet/report/0", json.dumps(posts.Report(1, "ValueError: old", True, ["of", "other", "processes"], [])))
        store.add("funcnet/alarms", 1)
    dist.barrier()
    time.sleep(workers.rank)  # the others read the store in the meantime
    value = collective(workers)
    wait_for_all("summed")  # everything that rank 2 has sent must have left it
    if workers.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(WorkerError) as error:
        collective(workers)
    return value, error.value.missing


def test_posts_of_workers_that_were_killed_are_not_taken_for_new_ones() -> None:
    """This holds for waiting workers and for a later failure."""
    found = outcomes(3, started_again, lost=(2,))
    assert found[:2] == [(3.0, (2,)), (3.0, (2,))], found


def without_store() -> float:
    """Kill rank 0, which hosts the store of a second group."""
    rank, wait = dist.get_rank(), timedelta(seconds=30)
    own = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=wait) if rank == 0 else None
    port = [own and own.port]
    dist.broadcast_object_list(port)
    store = own or dist.TCPStore("127.0.0.1", port[0], is_master=False, timeout=wait)
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=store, rank=rank, world_size=3, timeout=wait)
    return killed(0)


def test_the_loss_of_the_store_is_told() -> None:
    """The error names the rank that hosts it."""
    found: list[Any] = outcomes(3, without_store, lost=(0,))
    for error in found[1:]:
        assert isinstance(error, WorkerError), error
        assert error.missing == (0,)
        assert "the store of the process group, got no answer from it: rank 0, or the process that holds it, is lost" in str(
            error
        )


def test_one_process_needs_no_store() -> None:
    """Its error does not change."""
    with pytest.raises(RuntimeError, match="as it was"), explaining_failures(Workers(None, 0, 1), "a step"):
        raise RuntimeError("as it was")


def test_the_error_pickles() -> None:
    """Its fields are kept."""
    error = pickle.loads(pickle.dumps(WorkerError("a step: ...", (1, 2), {3: "ValueError: x"})))
    assert (str(error), error.missing, error.raised) == ("a step: ...", (1, 2), {3: "ValueError: x"})
