"""Failures: the error of a worker when a collective fails, with the missing ranks and the errors of the others.

Gloo and NCCL report only an address or a timeout. Here each failing worker posts its error in the store of the process group and
waits briefly for the others, which shows which workers raised which errors, and which do not respond. A worker that waits in a
collective reads the store every quarter of a second, so an error of one worker ends the step of all long before the timeout of
the group. A successful step never accesses the store. A store on an unreachable host never answers and has no timeout, so a
separate thread reads it.
"""

from collections.abc import Iterable
from concurrent import futures
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from funcnet.distributed.posts import Board, asked, has_failed, set_out_of_step, set_unsettled, what_failed
from funcnet.kernels.private_names import default_store

_LOOK = timedelta(seconds=0.25)
"""Time that a worker waits in a collective before it reads the store; two round trips to the store take 0.2 ms."""

_GRACE = 3.0
"""Seconds that the others have to post after a collective has failed; at most half of the timeout of the group."""

_LONGEST = 500
_TORCH = Path(dist.__file__).parent
_OURS = (__file__, str(Path(__file__).with_name("workers.py")))


class WorkerError(RuntimeError):
    """Raised on the other workers when one is missing from a collective, or has raised an error before it.

    Its cause (``__cause__``) is the error of gloo or NCCL.

    Args:
        message: The text of the error.
        missing: Ranks that were killed, hang, are unreachable, or still compute or wait elsewhere.
        raised: Errors of other workers by rank, such as ``"ValueError: ..."``.

    Attributes:
        missing: The missing ranks, a tuple.
        raised: The errors of other workers, a dict.

    >>> str(WorkerError("data_parallel: ...", missing=(2,)))
    'data_parallel: ...'
    """

    def __init__(self, message: str, missing: Iterable[int] = (), raised: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.missing, self.raised = tuple(missing), dict(raised or {})


class _NoticedError(RuntimeError):
    """Raised in a waiting worker after another one has posted a failure."""


class explaining_failures:  # noqa: N801 (used as a function)
    """Explain failures of a step: ``with explaining_failures(workers, "data_parallel"): ...``.

    An error of this worker is posted for the others and raised unchanged. A failed collective raises ``WorkerError``, and so do
    all later collectives with the same workers: a worker that repeated the step alone would add its numbers to those of an
    earlier step. If every worker raised an error, all can continue.

    Args:
        workers: The workers that take part.
        who: The caller, for the error.
    """

    __slots__ = ("_who", "_workers")

    def __init__(self, workers: Any, who: object) -> None:
        self._workers, self._who = workers, who

    def __enter__(self) -> None:
        if has_failed() and self._workers.size > 1 and default_store is not None:
            _require_in_step(self._workers, self._who)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        is_told = error is None or isinstance(error, WorkerError) or getattr(error, "is_posted", False)
        if not is_told and self._workers.size > 1 and default_store is not None:
            error.is_posted = True  # type: ignore[union-attr]  # or an outer step would count it again
            _explain(self._workers, self._who, error)  # type: ignore[arg-type]


class Watched:
    """A started collective on the CPU; ``wait`` ends early if another worker has failed."""

    __slots__ = ("_work",)

    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait, and read the store regularly; if it does not answer, wait until the collective itself times out."""
        look: futures.Future[bool] | None = None
        while True:
            try:
                self._work.wait(_LOOK)
                return
            except RuntimeError:
                if self._work.is_completed():  # maybe in the meantime; waiting again raises its own error
                    self._work.wait()
                    return
            look = look or asked(Board().others_failed)
            if futures.wait([look], 0.1).done:
                if look.result():
                    raise _NoticedError("another worker has failed")
                look = None


def watched(work: Any, values: Any) -> Any:
    """Watch a collective on CPU tensors. On a GPU, waiting with a timeout would block the process until it is done.

    Do not use it for point-to-point messages: gloo closes all connections when one of them times out.
    """
    return Watched(work) if work is not None and values.is_cpu and default_store is not None else work


def _explain(workers: Any, who: object, error: BaseException) -> None:
    """Post an error; raise ``WorkerError`` for a collective's error if other workers are missing or raised errors."""
    is_own, board = not _is_of_collective(error), Board()
    if is_own:
        set_unsettled(workers.group, _worded(error))
    else:
        leave_step(workers, error)
    ranks = dist.get_process_group_ranks(workers.group)
    seconds = min(_GRACE, board.store.timeout.total_seconds() / 2)
    try:
        asked(lambda: board.post(_worded(error), is_own=is_own, can_continue=is_own)).result(seconds)
        if is_own:
            return
        found = asked(lambda: board.collect(ranks, seconds)).result(2 * seconds)
    except (RuntimeError, TimeoutError):
        if is_own:
            return
        raise _store_is_gone(who, error) from error
    others = {rank: report for rank, report in found.items() if rank != board.rank}
    missing = tuple(rank for rank in ranks if rank not in found)
    raised = {rank: one.text for rank, one in others.items() if one.is_own}
    if isinstance(error, _NoticedError) and not missing and not raised:
        raised = {rank: one.text for rank, one in others.items()}
    if missing or raised:
        raise _worker_error(who, len(ranks), missing, raised, seconds) from error


def _require_in_step(workers: Any, who: object) -> None:
    """Raise ``WorkerError``, here and where others wait, if a collective of these workers has failed in this process."""
    failed = what_failed(workers.group, dist.get_process_group_ranks(workers.group))
    if failed is not None:
        rule = "after a failed collective the workers are out of step and must be restarted, or create a new process group"
        error = WorkerError(f"{_named(who)}: {rule}, got {failed[0]}")
        error.is_posted = True  # type: ignore[attr-defined]  # posted below, as the original failure
        with suppress(RuntimeError, TimeoutError):
            asked(lambda: Board().post(failed[0], is_own=failed[1])).result(_GRACE)
        raise error


def leave_step(workers: Any, error: BaseException) -> None:
    """Note that an error has left the workers out of step."""
    is_own = not _is_of_collective(error)
    set_out_of_step(workers.group, _worded(error) if is_own else _worded(error).splitlines()[0], is_own=is_own)


def _named(who: object) -> str:
    return who if isinstance(who, str) else repr(who)


def _is_of_collective(error: BaseException) -> bool:
    """Return whether an error is from a collective, judging by its class or where it was raised, instead of this worker's own."""
    if not isinstance(error, RuntimeError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else trace.tb_frame.f_code.co_filename
    of_torch = where.startswith(str(_TORCH)) and not where.startswith(str(_TORCH / "tensor"))
    named = any(word in str(error) for word in ("gloo", "NCCL"))
    return isinstance(error, (_NoticedError, dist.DistError)) or of_torch or where in _OURS or named


def _worded(error: BaseException) -> str:
    """Return the class and message of an error, shortened if long."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception as another:
        text = f"{type(error).__name__}, whose message raises {type(another).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _worker_error(who: object, size: int, missing: tuple[int, ...], raised: dict[int, str], seconds: float) -> WorkerError:
    words = [f"rank {rank} raised {text}" for rank, text in raised.items()]
    if missing:
        listed = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        words += [f"no response from {listed} within {seconds:g} s: killed, hanging, unreachable or still busy"]
    rule = f"{_named(who)}: all {size} workers must take part in each collective"
    return WorkerError(f"{rule}, got {'; '.join(words)}", missing, raised)


def _store_is_gone(who: object, error: BaseException) -> WorkerError:
    rule = f"{_named(who)}: all workers must take part in each collective and reach the store of the process group"
    gone = "got no answer from it: rank 0, or the process that holds it, is lost"
    return WorkerError(f"{rule}, {gone} (here: {_worded(error).splitlines()[0]})", missing=(0,))
