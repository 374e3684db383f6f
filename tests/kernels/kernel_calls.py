"""Record the kernels that a computation calls and the choices that it reads, to find what a choice between kernels affects."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from cases import Case
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from funcnet import random
from funcnet.kernels.choices import CHOICES, Choice
from funcnet.testing.comparison import everything, noise_like, prepared, run

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Call = tuple[Any, ...]


class Calls(TorchDispatchMode):
    """Mode that records each kernel call, with the dtype and the strides of its operands."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Call] = []

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record and make a call."""
        leaves = _pytree.tree_leaves((args, kwargs or {}))
        own = [(x.dtype, x.layout, x.stride() if x.layout is torch.strided else None) for x in leaves if isinstance(x, Tensor)]
        self.found.append((str(kernel), *own))
        return kernel(*args, **(kwargs or {}))


def calls(work: Callable[..., Any], *arguments: Any) -> list[Call]:
    """Return the kernels that ``work`` calls, in order."""
    with Calls() as recorded:
        work(*arguments)
    return recorded.found


def calls_of(case: Case) -> list[Call]:
    """Return the kernels that the forward and backward pass of a case call, in float32 and half precision."""
    return [call for dtype in DTYPES for call in calls(compute, case, dtype)]


def compute(case: Case, dtype: torch.dtype) -> Any:
    """Call all methods of a layer in a dtype, as its contract allows."""
    params, x = prepared(case.layer, case.x, case.params, 0, dtype)
    gy = noise_like(run(case.layer, params, x, 0)[0], random.fold_in(0, 1))
    return everything(case.layer, params, x, gy, 0)


class _Asked(Choice):
    """A choice that records each read of its value; instances of ``Choice`` temporarily get this class."""

    __slots__ = ()
    names: ClassVar[set[str]] = set()

    @property
    def value(self) -> int:
        """Record the read, and return the value."""
        self.names.add(self.name)
        return Choice.value.__get__(self)


@contextmanager
def asked() -> Iterator[set[str]]:
    """Collect the names of the choices that are read in the block."""
    _Asked.names = names = set()
    for one in CHOICES.values():
        one.__class__ = _Asked
    try:
        yield names
    finally:
        for one in CHOICES.values():
            one.__class__ = Choice
