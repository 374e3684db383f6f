"""Modes: whether tensors are just computed, so that a kernel may be chosen that only plain tensors can take."""

import torch
from torch import Tensor


def eager() -> bool:
    """Tell whether tensors are just computed: nothing is being compiled, and no transform of ``torch.func`` is at work."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def plain(*tensors: Tensor | None) -> bool:
    """Tell whether all of them are just numbers in main memory, which no one differentiates through."""
    for x in tensors:
        if x is not None and not (type(x) is Tensor and x.is_cpu and not x.requires_grad):
            return False
    return eager()
