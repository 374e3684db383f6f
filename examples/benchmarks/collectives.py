"""The collectives of a step: recorded, replaced with no-ops, and repeated without the step.

The replacements affect code that calls functions as attributes of ``torch.distributed``. Three times determine the share of
communication that a step hides:

    hidden share = 1 - (step - step without communication) / communication
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

NAMES = (
    *("all_reduce", "broadcast"),
    *("all_gather_single", "all_gather_into_tensor", "reduce_scatter_single", "reduce_scatter_tensor"),
)
Call = tuple[str, list[tuple[torch.Size, torch.dtype]]]


class Done:
    """A finished collective."""

    def wait(self, timeout: Any = None) -> bool:
        """Return at once."""
        return True


@contextmanager
def _replaced(make: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace functions of ``torch.distributed``."""
    before = {name: getattr(dist, name) for name in NAMES if hasattr(dist, name)}
    try:
        for name, function in before.items():
            setattr(dist, name, make(name, function))
        yield
    finally:
        for name, function in before.items():
            setattr(dist, name, function)


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Record the collectives that are called, with the shapes of their tensors."""
    calls: list[Call] = []

    def make(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def recording(*args: Any, **kwargs: Any) -> Any:
            tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
            calls.append((name, [(one.shape, one.dtype) for one in tensors]))
            return function(*args, **kwargs)

        return recording

    with _replaced(make):
        yield calls


@contextmanager
def silent() -> Iterator[None]:
    """Replace collectives with no-ops: each worker continues with its own numbers."""
    with _replaced(lambda name, function: lambda *args, **kwargs: Done()):
        yield


def again(calls: list[Call]) -> Callable[[], None]:
    """Return a function that repeats the collectives, and starts them all before it waits."""
    tensors = [[torch.zeros(shape, dtype=dtype) for shape, dtype in shapes] for _, shapes in calls]

    def run() -> None:
        for work in [getattr(dist, name)(*own, async_op=True) for (name, _), own in zip(calls, tensors, strict=True)]:
            work.wait()

    return run


def nbytes(calls: list[Call]) -> int:
    """Return the sum over collectives of the bytes of the largest tensor."""
    return sum(max(shape.numel() * dtype.itemsize for shape, dtype in shapes) for _, shapes in calls if shapes)
