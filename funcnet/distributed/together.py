"""Together: work that each worker does separately, with a common outcome: if one fails, all raise an error with its rank."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist

from funcnet.distributed.failures import explaining_failures
from funcnet.distributed.workers import Workers, gather_objects, workers_of
from funcnet.saving.tensors import Damaged

Failure = tuple[str, int | None, str]
"""The kind of an error, its errno if it is an ``OSError``, and its message."""


class DamagedError(ValueError):
    """Raised on all workers for a checkpoint with damaged files."""


def workers_here(who: str, group: Any) -> Workers:
    """Return the workers of a group, or only this process if there is no process group."""
    alone = group is None and not (dist.is_available() and dist.is_initialized())
    return Workers(None, 0, 1) if alone else workers_of(who, group)


def succeed(workers: Workers, who: str, what: Callable[[], Any]) -> Any:
    """Call a function on every worker, and return this worker's result; an error of one worker is raised on all.

    An error that is the same on all workers, such as one about an argument, is raised unchanged.
    """
    return _outcome(workers, who, what, is_shared=False)


def shared(workers: Workers, who: str, what: Callable[[], Any]) -> list[Any]:
    """Call a function on every worker, like ``succeed``, and return the results, strings and numbers, by rank."""
    return _outcome(workers, who, what, is_shared=True)  # type: ignore[no-any-return]


def _outcome(workers: Workers, who: str, what: Callable[[], Any], *, is_shared: bool) -> Any:
    result, error = None, None
    try:
        result = what()
    except Exception as raised:
        error = raised
    one = (result if is_shared else None, _failure_of(error))
    with explaining_failures(workers, who):
        found = [one] if workers.size == 1 else gather_objects(workers, one)
    failed = {rank: failure for rank, (_, failure) in enumerate(found) if failure is not None}
    if failed:
        _raise(who, failed, error, workers.size)
    return [given for given, _ in found] if is_shared else result


def _raise(who: str, failed: Mapping[int, Failure], error: Exception | None, size: int) -> None:
    if error is not None and not isinstance(error, Damaged) and len(failed) == size and len({*failed.values()}) == 1:
        raise error
    raise _joined(who, failed, size) from error


def raise_failures(who: str, failures: Mapping[int, Any], size: int) -> None:
    """Raise the errors gathered by torch, by rank, on every worker."""
    found = {rank: _failure_of(one if isinstance(one, BaseException) else one[0]) for rank, one in failures.items()}
    raise _joined(who, {rank: one for rank, one in found.items() if one is not None}, size) from None


def _failure_of(error: BaseException | None) -> Failure | None:
    if error is None:
        return None
    if isinstance(error, (Damaged, DamagedError)):
        return "damaged", None, str(error)
    kind = "OSError" if isinstance(error, OSError) else "ValueError" if isinstance(error, ValueError) else "RuntimeError"
    return kind, getattr(error, "errno", None), f"{type(error).__name__}: {error}"


def _joined(who: str, failed: Mapping[int, Failure], size: int) -> Exception:
    """Combine the errors of some workers."""
    words = "; ".join([f"{failure[2]}{f', on rank {rank}' * (size > 1)}" for rank, failure in failed.items()])
    kinds = {kind: number for kind, number, _ in failed.values()}
    if "damaged" in kinds:
        return DamagedError(f"{who}: all files of the checkpoint must be whole, got {words}")
    message = f"{who}: all workers must succeed, got {words}"
    if "OSError" in kinds:
        return OSError(kinds["OSError"] or 0, message)
    return ValueError(message) if "ValueError" in kinds else RuntimeError(message)
