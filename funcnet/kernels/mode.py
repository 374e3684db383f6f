"""Modes: whether tensors are just computed, so that a kernel may be chosen that only plain tensors can take."""

import torch
from torch import Tensor

_at_work = torch._C._functorch.peek_interpreter_stack


def untransformed() -> bool:
    """Tell whether no transform of ``torch.func`` is at work, such as ``vmap``."""
    return _at_work() is None


def eager() -> bool:
    """Tell whether tensors are just computed: nothing is being compiled, and no transform of ``torch.func`` is at work."""
    return not torch.compiler.is_compiling() and _at_work() is None


def mapped(x: Tensor) -> bool:
    """Tell whether some transform of ``torch.func`` is at work; in compiled code, whether ``vmap`` maps over x."""
    return torch._C._functorch.is_batchedtensor(x) if torch.compiler.is_compiling() else _at_work() is not None


def alone(*tensors: Tensor | None) -> bool:
    """Tell whether all of them lie in main memory, or will when compiled code runs, and no one differentiates through them."""
    given = [x for x in tensors if x is not None]
    return all([type(x) is Tensor and x.is_cpu and not x.requires_grad for x in given])  # noqa: C419 (a generator takes longer)


def plain(*tensors: Tensor | None) -> bool:
    """Tell whether all of them are just numbers in main memory, which no one differentiates through."""
    return alone(*tensors) and eager()
