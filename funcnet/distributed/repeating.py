"""Repeating: after an error, a step can be repeated if all workers had an error between the same collectives.

If a worker catches its own error and continues, its next batch would take part in a collective in which the others still wait for
the previous batch. To detect this, each failing worker posts how many collectives it has started, and its next step first reads
the posts of the others. A step after a successful one never accesses the store.

    funcnet/repeat/GROUP/2    the collectives that rank 2 had started at each of its failures, and the tokens it knew
"""

import json
import time
from concurrent import futures
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch.distributed as dist

from funcnet.distributed.failures import WorkerError
from funcnet.distributed.posts import Board, asked
from funcnet.kernels.private_names import collectives_started, default_store

_PATIENCE = 10.0
"""Seconds that the others have to fail too; at most half of the timeout of the group."""


class Repeats:
    """The failures of a group of workers in this process; a context manager for each of their steps."""

    def __init__(self, workers: Any, who: str) -> None:
        self.workers, self.who = workers, who
        self._started: list[int] = []
        self._posting: futures.Future[None] | None = None

    def __enter__(self) -> None:
        if self._posting is not None:
            self._require_same_place(self._posting)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and self.workers.size > 1 and default_store is not None and collectives_started is not None:
            self._started.append(collectives_started(_group_of(self.workers)))
            self._posting = asked(self._post)  # not awaited here, because the store may be gone

    def _key(self, rank: int) -> str:
        return f"funcnet/repeat/{_group_of(self.workers).group_name}/{rank}"

    def _post(self) -> None:
        board = Board()
        board.store.set(self._key(board.rank), json.dumps((self._started, board.tokens())))

    def _require_same_place(self, posting: "futures.Future[None]") -> None:
        """Wait until all workers have failed equally often; raise if they have not, or are at different places."""
        ranks = dist.get_process_group_ranks(_group_of(self.workers))
        seconds = min(_PATIENCE, Board().store.timeout.total_seconds() / 2)
        found: dict[int, int] = {}
        with suppress(RuntimeError, TimeoutError):
            posting.result(seconds)
            found = asked(lambda: self._collect(ranks, seconds)).result(2 * seconds)
        rule = f"{self.who}: after an error a step can be repeated if all workers had an error between the same collectives"
        missing = tuple([rank for rank in ranks if rank not in found])
        if missing:
            raise WorkerError(f"{rule}, got no error from rank {', '.join(map(str, missing))} within {seconds:g} s", missing)
        if len({*found.values()}) > 1:
            places = ", ".join([f"{started} started on rank {rank}" for rank, started in found.items()])
            raise WorkerError(f"{rule}, got {places}; create a new process group, or restart the workers")
        self._posting = None

    def _collect(self, ranks: list[int], seconds: float) -> dict[int, int]:
        """Return the number of collectives started at this failure, for each worker that has failed as often within the time."""
        board, deadline, count = Board(), time.monotonic() + seconds, len(self._started)
        while True:
            posted = {rank: self._posted(board, rank) for rank in ranks}
            found = {rank: started[count - 1] for rank, started in posted.items() if len(started) >= count}
            if len(found) == len(ranks) or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def _posted(self, board: Board, rank: int) -> list[int]:
        """Return the numbers that a worker has posted; none if they are meant for an earlier process of this rank."""
        text = board.get(self._key(rank))
        started, tokens = json.loads(text) if text else ([], [])
        return started if tokens[board.rank : board.rank + 1] == [board.token()] else []


_KNOWN: dict[tuple[str, str], Repeats] = {}


def repeats_of(workers: Any, who: str) -> Repeats:
    """Return the ``Repeats`` shared by all steps of a group in this process."""
    if workers.size == 1 or default_store is None:
        return Repeats(workers, who)
    return _KNOWN.setdefault((Board().token(), _group_of(workers).group_name), Repeats(workers, who))


def _group_of(workers: Any) -> Any:
    return workers.group or dist.group.WORLD
