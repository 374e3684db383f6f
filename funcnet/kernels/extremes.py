"""Statistics of squares that leave the range of float32, as those of numbers from 1e19 on do: when float64 must serve.

Kernels of float32 take squares, and on the way back the third power of 1 / σ. That is right for 1e-12 < 1 / σ, and beyond it the
same kernel is called in float64. Only a look at the statistics tells: 0.9 µs for up to 1000 of them, where scaling x by its largest
element takes 15 µs for 1024×256, of the 84 of a layer norm, and statistics in float64 throughout 30 and more. Values can be looked at in eager
mode in main memory; elsewhere the formula takes float64 wherever that costs no pass.
"""

import math

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_eager

_LEAST = 1e-12
_SQUARES = {torch.float32: (1e-16, 1e19), torch.float64: (1e-140, 1e154)}
_POWERLESS = (0, 1, math.inf, -math.inf)


def can_look_at(x: Tensor) -> bool:
    """Tell whether values may decide what is computed: in eager mode, in main memory."""
    return x.is_cpu and type(x) is Tensor and is_eager()


def is_far(r: Tensor) -> bool:
    """Tell whether some 1 / σ is too small for the kernels of float32, 0 or NaN; where values are hidden, no."""
    seen = r.is_cpu and r.dtype is not torch.float64 and type(r) is Tensor and is_eager() and r.numel()
    return bool(seen) and is_far_seen(r)


def is_far_seen(r: Tensor) -> bool:
    """Tell the same of values, one at least, that can be looked at."""
    return not r.min().item() > _LEAST


def in_double(*leaves: Tensor | None) -> list[Tensor | None]:
    """Return tensors in float64, and ``None`` as it is."""
    return [None if leaf is None else leaf.double() for leaf in leaves]
