"""Kernels of optimizers: a formula for one leaf, run for each leaf in turn.

A leaf stays in the cache from its first operation to its last; operations on the list of all leaves would each go through memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.optim import Tensors, narrowed
from funcnet.kernels.tracing import is_eager

Formula = Callable[..., tuple[Tensor, ...]]


def each_leaf(formula: Formula, columns: Sequence[Tensors], numbers: dict[str, Any], donated: bool) -> Sequence[Tensors]:
    """Return the lists of new params and moments; with ``donated`` in the memory of the old ones.

    Args:
        formula: ``formula(p, g, *moments, **numbers) -> (p, *moments)`` for one leaf.
        columns: Lists of params, gradients and moments.
        numbers: Numbers, or 0-d tensors, which are converted to the precision of the leaf.
        donated: Whether params and moments may be written to.
    """
    rows = [_leaf(formula, row, numbers, donated) for row in zip(*columns, strict=True)]
    return [*map(list, zip(*rows, strict=True))]


def _leaf(formula: Formula, row: Tensors, numbers: dict[str, Any], donated: bool) -> Tensors:
    p, g, *moments = given = [x.contiguous() for x in row]  # results do not depend on strides, bit for bit
    new = formula(p, g, *moments, **{name: narrowed(one, p) for name, one in numbers.items()})
    if donated:  # new values that are old tensors are cloned before those are written to
        new = tuple([y.clone() if any([y is x for x in given]) else y for y in new])  # noqa: C419
    return [placed(y, x, donated) for y, x in zip(new, [row[0], *row[2:]], strict=True)]


def placed(y: Tensor, x: Tensor, donated: bool) -> Tensor:
    """Return the new value y with the dtype and strides of the old value x or, with ``donated``, in its memory."""
    if donated:
        return x if y is x else x.copy_(y)
    y = y if y.dtype is x.dtype else y.to(x.dtype)
    if not is_eager() or x.is_contiguous():
        return y
    return torch.empty_like(x).copy_(y)
