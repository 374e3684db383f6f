"""Posts: the messages that failing workers leave for each other in the store of the process group.

    funcnet/token/2     a random word chosen by the process of rank 2 when it joined
    funcnet/report/2    its latest failure
    funcnet/alarms      the total number of failures

A worker that continues after an error reads the reports of the other workers.
"""

import atexit
import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

import attrs
import torch.distributed as dist

from funcnet.kernels.private_names import default_store

_T = TypeVar("_T")


_LAST = 5.0
"""Seconds for which the exit of the process waits for threads that read a store."""

_LONGEST = 60.0
"""Seconds for which a worker that continues after an error waits for the others to report an error too."""

_KEPT = 100
"""Number of failures that a post lists; other workers look for one of the last few."""

_asking: set[threading.Thread] = set()


def asked(ask: Callable[[], _T]) -> "futures.Future[_T]":
    """Call the store in a thread, because it may never answer; the exit of the process waits only a few seconds."""
    answer: futures.Future[_T] = futures.Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)
        finally:
            _asking.discard(threading.current_thread())

    thread = threading.Thread(target=run, daemon=True)
    _asking.add(thread)
    thread.start()
    return answer


@atexit.register
def _finish_asking() -> None:
    """Wait for threads that read a store: one that returns from C++ during Python's shutdown would abort the process."""
    end = time.monotonic() + _LAST
    for thread in [*_asking]:
        thread.join(max(0.0, end - time.monotonic()))


class Report(NamedTuple):
    """The post of a worker.

    ``number`` counts the failures of its process, ``is_own`` is true for an error of the worker itself and false for a
    collective's, and ``tokens`` are the tokens of the processes that it has seen, by rank. torchrun restarts workers with the
    same store, so a post with a token other than the reader's is outdated. ``unshared`` has the numbers of the last failures
    after which the worker could not continue: it may post again before the others have read an earlier failure.
    """

    number: int
    text: str
    is_own: bool
    tokens: list[str]
    unshared: list[int]


@attrs.define
class _Process:
    """The identity of this process in a store, and the posts that it has seen there."""

    pid: int = 0
    store: Callable[[], Any] = lambda: None  # a weak reference, because another group's store can get the same id
    token: str = ""
    failures: int = 0
    alarms: int = 0
    unshared: list[int] = attrs.field(factory=list)
    out_of_step: dict[str, tuple[str, bool]] = attrs.field(factory=dict)
    unsettled: dict[str, str] = attrs.field(factory=dict)


_PROCESS = _Process()


def announce() -> None:
    """Register this process once in the store of the process group."""
    store = default_store() if default_store is not None else None
    if store is None or (_PROCESS.pid == os.getpid() and _PROCESS.store() is store):
        return
    _PROCESS.pid, _PROCESS.store, _PROCESS.token = os.getpid(), weakref.ref(store), secrets.token_hex(8)
    _PROCESS.failures, _PROCESS.alarms, _PROCESS.unshared, _PROCESS.out_of_step, _PROCESS.unsettled = 0, 0, [], {}, {}
    store.set(f"funcnet/token/{dist.get_rank()}", _PROCESS.token)


def set_out_of_step(group: Any, text: str, *, is_own: bool) -> None:
    """Record that a collective of a group has failed here: the next one could be matched with this one on another worker."""
    announce()
    _PROCESS.out_of_step.setdefault(_name(group), (text, is_own))


def set_unsettled(group: Any, text: str) -> None:
    """Record an error of this worker that others may not have had."""
    _PROCESS.unsettled[_name(group)] = text


def what_failed(group: Any, ranks: Iterable[int]) -> tuple[str, bool] | None:
    """Return the first failure of a group that is out of step, and whether it was this worker's own error, or ``None``."""
    announce()
    text = _PROCESS.unsettled.pop(_name(group), None)
    if text is not None and not _have_all_failed([*ranks]):
        _PROCESS.unshared.append(_PROCESS.failures)
        set_out_of_step(group, text, is_own=True)
    return _PROCESS.out_of_step.get(_name(group))


def has_failed() -> bool:
    """Return whether this process has had a failure with its workers."""
    return _PROCESS.failures > 0


def _have_all_failed(ranks: list[int]) -> bool:
    """Wait until all workers have posted this failure, and return whether each raised an error itself."""
    board = Board()
    seconds = min(_LONGEST, board.store.timeout.total_seconds())
    try:
        found = asked(lambda: board.collect(ranks, seconds)).result(seconds + _LAST)
    except (RuntimeError, TimeoutError):
        return False
    return all(rank in found and _PROCESS.failures not in found[rank].unshared for rank in ranks)


def _name(group: Any) -> str:
    return str(getattr(group or dist.group.WORLD, "group_name", ""))


class Board:
    """The keys in the store where workers post their failures.

    Errors that all workers raise and survive are counted equally on all of them, so old posts are never mistaken for new ones.
    """

    def __init__(self) -> None:
        announce()
        self.store, self.rank, self.size = default_store(), dist.get_rank(), dist.get_world_size()

    def post(self, text: str, *, is_own: bool, can_continue: bool = False) -> None:
        """Post a failure; with ``can_continue`` this worker can make its next step if all others had an error too."""
        _PROCESS.failures += 1
        if not can_continue:
            _PROCESS.unshared = [*_PROCESS.unshared[-_KEPT:], _PROCESS.failures]
        report = Report(_PROCESS.failures, text, is_own, self.tokens(), _PROCESS.unshared)
        self.store.set(f"funcnet/report/{self.rank}", json.dumps(report))
        self.store.add("funcnet/alarms", 1)

    def others_failed(self) -> bool:
        """Return whether another worker has posted a failure that this one has not had, or the store cannot be reached."""
        try:
            alarms = int(self.get("funcnet/alarms") or 0)
            if alarms == _PROCESS.alarms:
                return False
            _PROCESS.alarms = alarms
            return any(one.number > _PROCESS.failures for one in self.reports().values())
        except RuntimeError:
            return True

    def reports(self) -> dict[int, Report]:
        """Return the latest post of each worker, by rank, without posts of earlier processes."""
        texts = {rank: self.get(f"funcnet/report/{rank}") for rank in range(self.size)}
        found = {rank: Report(*json.loads(text)) for rank, text in texts.items() if text}
        return {rank: one for rank, one in found.items() if self._is_new(rank, one)}

    def _is_new(self, rank: int, one: Report) -> bool:
        """Return whether a post is from a process that has seen this one, or that failed before this one joined."""
        here = one.tokens[self.rank : self.rank + 1]
        return here == [_PROCESS.token] or (here == [""] and one.tokens[rank] == self.get(f"funcnet/token/{rank}"))

    def collect(self, ranks: Iterable[int], seconds: float) -> dict[int, Report]:
        """Wait until the given workers have posted this failure, and return the posts that have arrived in time."""
        deadline = time.monotonic() + seconds
        while True:
            found = {rank: one for rank, one in self.reports().items() if one.number >= _PROCESS.failures}
            if found.keys() >= {*ranks} or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def token(self) -> str:
        """Return the token of this process."""
        return _PROCESS.token

    def tokens(self) -> list[str]:
        """Return the tokens of all processes, by rank."""
        return [self.get(f"funcnet/token/{rank}") for rank in range(self.size)]

    def get(self, key: str) -> str:
        """Return the text under a key, or ``""``."""
        return self.store.get(key).decode() if self.store.check([key]) else ""
