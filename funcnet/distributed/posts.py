"""Posts: what workers that fail tell each other in the store of the process group.

funcnet/token/2     a word that the process of rank 2 has made up when it joined
funcnet/report/2    its newest failure
funcnet/alarms      the number of all failures
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
"""Seconds for which the end of the process waits for threads that ask a store."""

_LONGEST = 60.0
"""Seconds for which a worker that goes on after an error waits to know whether all have had one."""

_asking: set[threading.Thread] = set()


def asked(ask: Callable[[], _T]) -> "futures.Future[_T]":
    """Have a thread ask the store, which may take for ever; the end of the process waits for it a few seconds only."""
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
    """Wait for the threads that ask: one that comes back from C++ while Python ends aborts the process."""
    end = time.monotonic() + _LAST
    for thread in [*_asking]:
        thread.join(max(0.0, end - time.monotonic()))


class Report(NamedTuple):
    """What a worker posts.

    ``number`` counts the failures of its process, ``is_own`` tells an error of its own from one of a collective, and ``tokens``
    are those of the processes that it knew by their ranks. torchrun starts workers again with the same store, so a post with
    another token than the reader's is an old one.
    """

    number: int
    text: str
    is_own: bool
    tokens: list[str]


@attrs.define
class _Process:
    """What this process is known by in a store, and what it has seen there."""

    pid: int = 0
    store: Callable[[], Any] = lambda: None  # a weak reference: the store of another group may get the same id
    token: str = ""
    failures: int = 0
    alarms: int = 0
    out_of_step: dict[str, tuple[str, bool]] = attrs.field(factory=dict)
    unsettled: dict[str, str] = attrs.field(factory=dict)


_PROCESS = _Process()


def announce() -> None:
    """Tell the store of the process group that this process is one of the workers, once."""
    store = default_store() if default_store is not None else None
    if store is None or (_PROCESS.pid == os.getpid() and _PROCESS.store() is store):
        return
    _PROCESS.pid, _PROCESS.store, _PROCESS.token = os.getpid(), weakref.ref(store), secrets.token_hex(8)
    _PROCESS.failures, _PROCESS.alarms, _PROCESS.out_of_step, _PROCESS.unsettled = 0, 0, {}, {}
    store.set(f"funcnet/token/{dist.get_rank()}", _PROCESS.token)


def set_out_of_step(group: Any, text: str, *, is_own: bool) -> None:
    """Note that a collective of a group has failed here: its next one could meet this one of another worker."""
    announce()
    _PROCESS.out_of_step.setdefault(_name(group), (text, is_own))


def set_unsettled(group: Any, text: str) -> None:
    """Note an error of this worker, which others may not have had."""
    _PROCESS.unsettled[_name(group)] = text


def what_failed(group: Any, ranks: Iterable[int]) -> tuple[str, bool] | None:
    """Return the text of what failed first, and whether it was this worker's own error, for a group that is out of step."""
    announce()
    text = _PROCESS.unsettled.pop(_name(group), None)
    if text is not None and not _have_all_failed([*ranks]):
        set_out_of_step(group, text, is_own=True)
    return _PROCESS.out_of_step.get(_name(group))


def has_failed() -> bool:
    """Tell whether this process has had any failure with its workers."""
    return _PROCESS.failures > 0


def _have_all_failed(ranks: list[int]) -> bool:
    """Wait until all have posted, as in a collective: an error of their own, or that another's has ended a wait."""
    board = Board()
    seconds = min(_LONGEST, board.store.timeout.total_seconds())
    try:
        found = asked(lambda: board.collect(ranks, seconds)).result(seconds + _LAST)
    except (RuntimeError, TimeoutError):
        return False
    return all(rank in found and (found[rank].is_own or found[rank].number > _PROCESS.failures) for rank in ranks)


def _name(group: Any) -> str:
    return str(getattr(group or dist.group.WORLD, "group_name", ""))


class Board:
    """The keys in the store of all processes where workers post their failures.

    Errors that all workers raise, catch and outlive are counted on each of them alike, so old posts are never taken for new ones.
    """

    def __init__(self) -> None:
        announce()
        self.store, self.rank, self.size = default_store(), dist.get_rank(), dist.get_world_size()

    def post(self, text: str, *, is_own: bool) -> None:
        """Post a failure."""
        _PROCESS.failures += 1
        self.store.set(f"funcnet/report/{self.rank}", json.dumps(Report(_PROCESS.failures, text, is_own, self.tokens())))
        self.store.add("funcnet/alarms", 1)

    def others_failed(self) -> bool:
        """Tell whether another worker has posted a failure that this one has not had; also when the store is gone."""
        try:
            alarms = int(self.get("funcnet/alarms") or 0)
            if alarms == _PROCESS.alarms:
                return False
            _PROCESS.alarms = alarms
            return any(one.number > _PROCESS.failures for one in self.reports().values())
        except RuntimeError:
            return True

    def reports(self) -> dict[int, Report]:
        """Return the newest post of each worker, by rank, without those of processes that were here before."""
        texts = {rank: self.get(f"funcnet/report/{rank}") for rank in range(self.size)}
        found = {rank: Report(*json.loads(text)) for rank, text in texts.items() if text}
        return {rank: one for rank, one in found.items() if self._is_new(rank, one)}

    def _is_new(self, rank: int, one: Report) -> bool:
        """Tell whether a post is of a process that knows this one, or has failed before this one joined."""
        here = one.tokens[self.rank : self.rank + 1]
        return here == [_PROCESS.token] or (here == [""] and one.tokens[rank] == self.get(f"funcnet/token/{rank}"))

    def collect(self, ranks: Iterable[int], seconds: float) -> dict[int, Report]:
        """Wait until the given workers have posted this failure, and return the posts that are there in time."""
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
        """Return what is posted under a key, empty without anything."""
        return self.store.get(key).decode() if self.store.check([key]) else ""
