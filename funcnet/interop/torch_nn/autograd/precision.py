"""Nets under ``torch.autocast``: the whole net is computed in the dtype of autocast, with autocast disabled.

    y = cast(net, dtype)(p, x̃)      x̃: x in the dtype; gradients in the dtypes of p and x

Under autocast each kernel casts its operands according to torch's lists, which would not apply in a VJP that is called later.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.combinators.mixed_precision import cast
from funcnet.contract import Layer
from funcnet.kernels.tracing import is_autocast


def casts_of(net: Layer) -> dict[torch.dtype, Layer]:
    """Return the net in each dtype that autocast can use."""
    return {dtype: cast(net, dtype) for dtype in (torch.bfloat16, torch.float16)}


def device_of(row: Sequence[Any]) -> torch.device:
    """Return the device of the last tensor in a row, which belongs to x if x has tensors."""
    return next((leaf.device for leaf in reversed(row) if isinstance(leaf, Tensor)), torch.device("cpu"))


def autocast_off(row: Sequence[Any]) -> AbstractContextManager[Any]:
    """Return a context in which autocast is off for the device of a row."""
    return torch.autocast(device_of(row).type, enabled=False) if is_autocast() else nullcontext()


def in_autocast_dtype(function: Callable[..., Any], plan: Any, row: Sequence[Any]) -> Any:
    """Call ``function(plan, row)`` with the net cast to the dtype of autocast; float64 stays float64, as in torch."""
    kind = device_of(row).type
    is_double = [isinstance(leaf, Tensor) and leaf.dtype is torch.float64 for leaf in row]
    casts = torch.is_autocast_enabled(kind) and not any(is_double)
    with torch.autocast(kind, enabled=False):
        if not casts:
            return function(plan, row)
        dtype = torch.get_autocast_dtype(kind)
        inputs = [leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in row[plan.count :]]
        y, moved = function(plan.in_dtype(dtype), [*row[: plan.count], *inputs])
        return tree.cast(y, dtype), moved
