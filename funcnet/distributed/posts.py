"""Posts: what workers that fail tell each other in the store of the process group.

funcnet/token/2     a word that the process of rank 2 has made up when it joined
funcnet/report/2    its newest failure
funcnet/alarms      the number of all failures
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import NamedTuple, TypeVar

import attrs
import torch.distributed as dist

from funcnet.kernels.private_names import default_store

_T = TypeVar("_T")


def asked(ask: Callable[[], _T]) -> "futures.Future[_T]":
    """Have a thread ask the store, which may take for ever; the thread does not keep the process from ending."""
    answer: futures.Future[_T] = futures.Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


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

    place: tuple[int, int] = (0, 0)
    token: str = ""
    failures: int = 0
    alarms: int = 0


_PROCESS = _Process()


def announce() -> None:
    """Tell the store of the process group that this process is one of the workers, once."""
    place = (os.getpid(), id(default_store())) if default_store is not None else _PROCESS.place
    if place != _PROCESS.place:
        _PROCESS.place, _PROCESS.token, _PROCESS.failures, _PROCESS.alarms = place, secrets.token_hex(8), 0, 0
        default_store().set(f"funcnet/token/{dist.get_rank()}", _PROCESS.token)


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
        return {rank: one for rank, one in found.items() if one.tokens[self.rank : self.rank + 1] == [_PROCESS.token]}

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
