"""Kernels of SM3: the largest elements along each axis, which bound a tensor from above with far fewer numbers.

The maxima of a tensor of shape (a, b, c) are a vector of a + b + c numbers; those of a 0-d tensor are a 0-d tensor.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def maxima(x: Tensor) -> Tensor:
    """Return the largest element at each position of each axis."""
    if x.dim() < 2:
        return x
    axes = range(x.dim())
    return torch.cat([x.amax([other for other in axes if other != axis]) for axis in axes])


def least_bound(bounds: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the smallest bound of each element, as a tensor that broadcasts to ``shape``."""
    if len(shape) < 2:
        return bounds
    lines = [[n if axis == other else 1 for other in range(len(shape))] for axis, n in enumerate(shape)]
    parts = [part.reshape(line) for part, line in zip(torch.split(bounds, [*shape]), lines, strict=True)]
    least: Tensor = reduce(torch.minimum, parts)
    return least
