"""Modes: whether tensors are just computed, so that a kernel may be chosen that only plain tensors can take."""

import torch
from torch import Tensor


def untransformed() -> bool:
    """Tell whether no transform of ``torch.func`` is at work, such as ``vmap``."""
    return torch._C._functorch.peek_interpreter_stack() is None


def eager() -> bool:
    """Tell whether tensors are just computed: nothing is being compiled, and no transform of ``torch.func`` is at work."""
    return not torch.compiler.is_compiling() and untransformed()


def alone(*tensors: Tensor | None) -> bool:
    """Tell whether all of them lie in main memory, or will, and no one differentiates through them or maps over them."""
    for x in tensors:
        if x is not None and not (type(x) is Tensor and x.is_cpu and not x.requires_grad):
            return False
    return untransformed()


def plain(*tensors: Tensor | None) -> bool:
    """Tell whether all of them are just numbers in main memory, which no one differentiates through."""
    return not torch.compiler.is_compiling() and alone(*tensors)
