"""Reductions to the largest or smallest element along some axes of x (...).

Equal extreme elements share the gradient, as in ``torch.amax`` and ``torch.amin``.
"""

import math
from typing import Any

import torch
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.layers.operands.reductions import Reduction, reduce_empty
from funcnet.precision import HALF, rounded
from funcnet.value import frozen


@frozen
class Max(Reduction):
    """Largest element along the axes ``dim`` (all axes by default); equally large elements share the gradient.

        y  = max x
        gx = gy / k where x = y, else 0          k the number of elements equal to y

    The maximum of no elements is -∞.

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        ``x``, not copied, ``y`` with all axes, and the axes.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.amax``.

    >>> Max(-1)({}, torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    tensor([5., 3.])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        return _extreme(self, torch.amax, params, x)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _extreme_grad(self, cache, gy)


@frozen
class Min(Reduction):
    """Smallest element along the axes ``dim`` (all axes by default); equally small elements share the gradient.

        y  = min x
        gx = gy / k where x = y, else 0          k the number of elements equal to y

    The minimum of no elements is ∞.

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        ``x``, not copied, ``y`` with all axes, and the axes.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.amin``.

    >>> Min(-1)({}, torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    tensor([1., 2.])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        return _extreme(self, torch.amin, params, x)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _extreme_grad(self, cache, gy)


def _extreme(layer: Reduction, f: Any, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
    dims = layer.dims(params, x)
    y = f(x, dims, keepdim=True) if x.numel() else reduce_empty(x, dims, math.inf if f is torch.amin else -math.inf)
    return layer.without_dims(y, dims), (x, y, tuple(dims))


def _extreme_grad(layer: Reduction, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> Tensor:
    x, y, dims = cache
    gy, extreme = check_gy(layer, gy, layer.without_dims(y, list(dims)).shape, y).reshape(y.shape), x == y
    if x.dtype not in HALF:  # half precision keeps bools, whose count is exact; float32 saves 40 of 290 µs for 1024×256
        extreme = extreme.to(x.dtype)
    return extreme * rounded(gy / extreme.sum(list(dims), keepdim=True), x)
