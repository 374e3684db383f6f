"""Workers for tests: processes that form a gloo group, run a function, and return its results.

They are forked from a server that imports torch and funcnet once, so four of them start in a fraction of a second.
"""

import functools
import multiprocessing
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

GUARD = 240.0
"""Seconds in addition to the timeout of the group after which workers count as hanging; starting them includes imports."""


class WorkerError(Exception):
    """A worker raised an error, or ended without a result."""


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    heavy = ["torch.distributed.tensor", "torch.distributed.checkpoint", "torch._dynamo"]  # the first DTensor imports Dynamo
    context.set_forkserver_preload([*heavy, "funcnet", "funcnet.distributed.sharding.sharded_steps"])
    return context


def _work(results: Any, folder: str, rank: int, size: int, timeout: float, f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
    )
    try:
        results.put((rank, f(*args), None))
    except Exception as error:
        results.put((rank, error, "".join(traceback.format_exception(error))))
    # A thread sends the contents of the queue. Leave the group only afterwards, since others can then fail.
    results.close()
    results.join_thread()
    dist.destroy_process_group()


def outcomes(size: int, f: Callable[..., Any], *args: Any, timeout: float = 30.0, lost: tuple[int, ...] = ()) -> list[Any]:
    """Run ``f(*args)`` in ``size`` workers; return the result or the error of each worker, by rank.

    ``f`` is a function of a module, and its result must be picklable, without tensors that share memory: use ``tolist`` or
    ``clone``. ``timeout`` is the timeout of the group's collectives, in seconds. ``lost`` are workers that are not expected to
    return anything.
    """
    found = dict.fromkeys(range(size))
    with tempfile.TemporaryDirectory() as folder:
        results = _context().Queue()
        started = [
            _context().Process(target=_work, args=(results, folder, rank, size, timeout, f, args), daemon=True)
            for rank in range(size)
        ]
        for one in started:
            one.start()
        missing, end = {*range(size)} - {*lost}, time.monotonic() + timeout + GUARD
        gone: list[int] = []
        while missing and time.monotonic() < end:
            try:
                rank, value, told = results.get(timeout=0.2)
            except queue.Empty:
                if gone:  # also a wait ago, so nothing of theirs is still on the way
                    raise WorkerError(f"worker {gone[0]} ended with code {started[gone[0]].exitcode}") from None
                gone = [rank for rank in missing if not started[rank].is_alive() and started[rank].exitcode]
                continue
            gone = [one for one in gone if one != rank]
            if told is not None:
                value.__notes__ = [*getattr(value, "__notes__", []), told]
            found[rank] = value
            missing.discard(rank)
        for one in started:
            one.join(0 if missing or lost else 10)
            one.kill()
        if missing:
            raise WorkerError(f"workers {sorted(missing)} returned nothing in {timeout + GUARD:.0f} s")
    return [found[rank] for rank in range(size)]


def wait_for_all(place: str) -> None:
    """Wait in a worker until all workers have come to this place, without a collective, since those may be out of step."""
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    store.set(f"{place}/{dist.get_rank()}", "")
    store.wait([f"{place}/{rank}" for rank in range(dist.get_world_size())], timedelta(minutes=1))


def run(size: int, f: Callable[..., Any], *args: Any, timeout: float = 30.0) -> list[Any]:
    """Run ``f(*args)`` in ``size`` workers and return the results by rank; raise the error of a worker."""
    found = outcomes(size, f, *args, timeout=timeout)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
