"""Kernels of gradient transforms: norms of leaves and of their units, in float64, where squares of float32 do not overflow.

The norm of a leaf of a million float32 elements takes 0.2 ms in float64 and 0.1 in float32.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.optim import materialize_scalar, narrowed, norm_of_all
from funcnet.kernels.private_names import foreach_add_
from funcnet.kernels.tracing import is_eager


def norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of a tensor, in float64."""
    return norm_of_all([x])


def rms(x: Tensor) -> Tensor:
    """Return the root mean square, in float64; 0 without elements."""
    return norm(x) / sqrt(max(1, x.numel()))


def unit_norms(x: Tensor) -> Tensor:
    """Return the norm of each entry of axis 0, in float64, with the other axes of size 1; for a vector its whole norm."""
    units: Tensor = torch.linalg.vector_norm(x, dim=[*range(x.dim() > 1, x.dim())], keepdim=True, dtype=torch.float64)
    return units


def times(x: Tensor, factor: Any) -> Tensor:
    """Multiply a tensor by a 0-d float64 tensor, in the precision of x."""
    scaled: Tensor = x * narrowed(materialize_scalar(factor), x)
    return scaled


def norm_of_difference(xs: Sequence[Tensor], ys: Sequence[Tensor], *, overwrite: bool) -> Tensor:
    """Return the Euclidean norm of all x - y together, in float64; with ``overwrite`` the xs may be overwritten.

    For 0.5 million elements the differences take 44 µs in place and 68 in fresh memory, and their norm 130.
    """
    if not overwrite or not is_eager():
        return norm_of_all([x - y for x, y in zip(xs, ys, strict=True)])
    if xs:
        foreach_add_(xs, ys, alpha=-1)
    return norm_of_all(xs)
