"""Workers: the processes of a group, and the collectives that they call together.

All modules of ``distributed`` call ``torch.distributed`` through these functions, which watch the collectives and report missing
workers.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from funcnet.distributed.failures import leave_step, watched
from funcnet.distributed.posts import announce
from funcnet.errors import describe, value_error
from funcnet.kernels.tracing import is_eager

_NEVER_SENT = 1 << 20
"""The tag of a message that is never sent."""


class Workers(NamedTuple):
    """A group of processes, the rank of this one, and the size."""

    group: Any
    rank: int
    size: int


def workers_of(who: object, group: Any = None) -> Workers:
    """Return the workers of a process group, by default of all processes; errors name ``who``.

    Raises:
        ValueError: If there is no process group, or this process is not in the group.
    """
    if not dist.is_available() or not dist.is_initialized():
        rule = "torch.distributed.init_process_group must be called first, in a process that torchrun started"
        raise value_error(who, rule, "no process group")
    if is_eager():
        _require_group(who, group)
        announce()
    rank = dist.get_rank(group)
    if rank < 0:
        raise value_error(who, "this process must be in the group", f"rank {dist.get_rank()}, which is not")
    return Workers(group, rank, dist.get_world_size(group))


def _require_group(who: object, group: Any) -> None:
    """Raise ``ValueError`` for anything but a process group; torch marks processes outside a group with a number."""
    if group is not None and not isinstance(group, dist.ProcessGroup) and group is not dist.GroupMember.NON_GROUP_MEMBER:
        raise value_error(who, "group must be a process group, or None for all processes", describe(group))


class Pending:
    """A started collective; ``wait`` returns its result."""

    __slots__ = ("_result", "_work")

    def __init__(self, work: Any, result: Any) -> None:
        self._work, self._result = work, result

    def wait(self) -> Any:
        """Wait for the collective and return its result."""
        if self._work is not None:
            self._work.wait()
        return self._result

    def settle(self) -> None:
        """Wait and release the sent memory if it is larger than the result."""


def sum_over(workers: Workers, values: Tensor) -> Pending:
    """Start summing ``values`` over all workers, in place."""
    return Pending(watched(dist.all_reduce(values, group=workers.group, async_op=True), values), values)


def gather_objects(workers: Workers, one: Any) -> list[Any]:
    """Return the object of each worker, by rank, such as strings and numbers; for work that is done once."""
    meet(workers)
    found: list[Any] = [None] * workers.size
    dist.all_gather_object(found, one, group=workers.group)
    return found


def sum_now(workers: Workers, values: Tensor) -> Tensor:
    """Sum ``values`` over all workers, in place, and return them; compiled code may call it."""
    dist.all_reduce(values, group=workers.group)
    return values


def stack_now(workers: Workers, one: Tensor) -> Tensor:
    """Return the tensors of all workers, by rank along a new first axis; compiled code may call it."""
    found = one.new_empty((workers.size * one.shape[0], *one.shape[1:]))
    dist.all_gather_single(found, one, group=workers.group)
    return found.reshape(workers.size, *one.shape)


def exchange(workers: Workers, sent: Sequence[tuple[Tensor, int]], received: Sequence[tuple[Tensor, int]]) -> list[Pending]:
    """Start sending tensors to other workers and receiving into tensors; return the pending messages, in this order.

    Messages from one worker to another arrive in the order of sending. NCCL needs both directions in one batch; otherwise two
    workers that send to each other wait forever.
    """
    ways = [(dist.isend, *one) for one in sent] + [(dist.irecv, *one) for one in received]
    works: list[Any]
    if dist.get_backend(workers.group) != "gloo":
        works = dist.batch_isend_irecv([dist.P2POp(way, values, None, workers.group, 0, peer) for way, values, peer in ways])
        works = works if len(works) == len(ways) else works[:1] * len(ways)  # one for the whole batch
    else:
        works = [dist.isend(values, group=workers.group, group_dst=peer) for values, peer in sent]
        works += [dist.irecv(values, group=workers.group, group_src=peer) for values, peer in received]
    return [Pending(work, values) for work, (_, values, _) in zip(works, ways, strict=True)]


def broadcast_from(workers: Workers, values: Tensor, source: int) -> Pending:
    """Start sending ``values`` of the worker ``source`` to all others, which receive them in place."""
    work = dist.broadcast(values, group=workers.group, async_op=True, group_src=source)
    return Pending(watched(work, values), values)


def gather_rows(workers: Workers, row: Tensor) -> Pending:
    """Start gathering rows of equal length from all workers, as a matrix with a row for each rank.

    On gloo, broadcasting each row takes 0.7 times as long between four workers for rows of 3 · 10⁵ floats or more, and as long
    between two; but a gather is a single collective.
    """
    return gather_into(workers, row.new_empty((workers.size, *row.shape)), row)


def gather_into(workers: Workers, whole: Tensor, row: Tensor) -> Pending:
    """Start gathering equal parts of a contiguous tensor, by rank, in place; this worker's part can already be there."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    work = gather(whole.view(-1), row.contiguous().view(-1), group=workers.group, async_op=True)
    return Pending(watched(work, whole), whole)


class PendingRows(Pending):
    """A collective whose result is the sum of the received rows; ``own`` is added to a single row."""

    __slots__ = ("_own",)

    def __init__(self, work: Any, rows: Tensor, own: Tensor | None = None) -> None:
        super().__init__(work, rows)
        self._own = own

    def wait(self) -> Any:
        self.settle()
        return self._result

    def settle(self) -> None:
        if self._work is not None:
            self._work.wait()
            self._result = self._result.sum(0) if self._own is None else self._result.add_(self._own)
            self._work = self._own = None


def scatter_sum(workers: Workers, rows: Tensor) -> Pending:
    """Start summing row r of all workers for each worker r; ``rows`` is a matrix with a row for each rank.

    On gloo every worker sends its rows and adds up the received ones in the order of the ranks. For 10⁷ floats this takes 30 ms
    between two workers and 65 ms between four; ``reduce_scatter_single`` takes 118 and 246 ms, ``all_reduce`` 51 and 96. For 10⁶
    floats the times are 2.5 and 4.7 ms, 5.0 and 14.9 ms, and 4.6 and 14.6 ms.
    """
    if dist.get_backend(workers.group) == "gloo":
        return _swapped(workers, rows) if workers.size == 2 else _exchanged(workers, rows)
    row = rows.new_empty(rows.shape[1:])
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    return Pending(scatter(row, rows.view(-1), group=workers.group, async_op=True), row)


def meet(workers: Workers) -> None:
    """Wait until all workers have arrived or one has failed; gathering objects and messages would wait until the timeout."""
    if dist.get_backend(workers.group) == "gloo":
        Pending(watched(dist.barrier(group=workers.group, async_op=True), torch.empty(0)), None).wait()


def close_messages(workers: Workers, why: BaseException) -> None:
    """End the waits of other workers for messages from this one, which are not watched; the group is unusable afterwards.

    With gloo, a message that times out closes the connection, which immediately raises an error on the other side.
    """
    leave_step(workers, why)
    if dist.get_backend(workers.group) == "gloo":
        for peer in {*range(workers.size)} - {workers.rank}:
            with suppress(RuntimeError):
                work: Any = dist.irecv(torch.empty(1), group=workers.group, group_src=peer, tag=_NEVER_SENT)
                work.wait(timedelta(milliseconds=1))


def _exchanged(workers: Workers, rows: Tensor) -> Pending:
    found = torch.empty_like(rows)
    work = dist.all_to_all_single(found.view(-1), rows.view(-1), group=workers.group, async_op=True)
    return PendingRows(watched(work, found), found)


def _swapped(workers: Workers, rows: Tensor) -> Pending:
    """Start swapping rows between two workers; a worker's own row stays in place, which halves the received memory."""
    sent, own = rows[1 - workers.rank], rows[workers.rank]
    found, splits = torch.empty_like(sent), [sent.numel() * (rank != workers.rank) for rank in range(2)]
    work = dist.all_to_all_single(found.view(-1), sent.view(-1), splits, splits, group=workers.group, async_op=True)
    return PendingRows(watched(work, found), found, own)
