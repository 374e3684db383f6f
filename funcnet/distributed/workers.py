"""Workers: the processes of a group, and the collectives that they call together.

Every module of ``distributed`` reaches ``torch.distributed`` through the functions here, so that one place counts what is sent,
and says which worker is missing where a collective fails.
"""

from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from funcnet.errors import value_error


class Workers(NamedTuple):
    """A group of processes, and the place of this one in it."""

    group: Any
    rank: int
    size: int


def workers_of(who: object, group: Any = None) -> Workers:
    """Return the workers of a process group, by default of all processes; ``who`` asks, for the error.

    Raises:
        ValueError: Without a process group, and for a group that this process is not in.
    """
    if not dist.is_available() or not dist.is_initialized():
        rule = "torch.distributed.init_process_group must be called first, in a process that torchrun started"
        raise value_error(who, rule, "no process group")
    rank = dist.get_rank(group)
    if rank < 0:
        raise value_error(who, "this process must be in the group", f"rank {dist.get_rank()}, which is not")
    return Workers(group, rank, dist.get_world_size(group))


class Pending:
    """A collective that has been started; ``wait`` returns its result once it is there."""

    __slots__ = ("_result", "_work")

    def __init__(self, work: Any, result: Any) -> None:
        self._work, self._result = work, result

    def wait(self) -> Any:
        """Wait for the collective and return its result."""
        if self._work is not None:
            self._work.wait()
        return self._result


def sum_over(workers: Workers, values: Tensor) -> Pending:
    """Start adding ``values`` up over all workers, in their own memory."""
    return Pending(dist.all_reduce(values, group=workers.group, async_op=True), values)


def gather_objects(workers: Workers, one: Any) -> list[Any]:
    """Return what each worker has given, by rank: words and numbers, for what is done once."""
    found: list[Any] = [None] * workers.size
    dist.all_gather_object(found, one, group=workers.group)
    return found


def sum_now(workers: Workers, values: Tensor) -> Tensor:
    """Add ``values`` up over all workers, in their own memory, and return them; compiled code may call it."""
    dist.all_reduce(values, group=workers.group)
    return values


def stack_now(workers: Workers, one: Tensor) -> Tensor:
    """Return the tensors of all workers, by rank along a new first axis; compiled code may call it."""
    found = one.new_empty((workers.size * one.shape[0], *one.shape[1:]))
    dist.all_gather_single(found, one, group=workers.group)
    return found.reshape(workers.size, *one.shape)
