"""Variance and standard deviation along some axes of x (...).

μ is the mean of the n elements, c the correction.
"""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import came, check_gy
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import value_error, whole
from funcnet.kernels.extremes import for_squares
from funcnet.kernels.operands import divisor
from funcnet.layers.operands.reductions import Reduction, reduce_empty
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class Var(Reduction):
    """Variance over the axes ``dim`` (all axes by default).

        y  = Σ (x - μ)² / (n - c)        μ = Σ x / n,  c = ``correction``
        gx = 2 gy (x - μ) / (n - c)

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.
        correction: 1 for the unbiased variance, 0 for the variance of a whole population.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        x - μ, and the axes.

    Raises:
        ValueError: If there are not more than ``correction`` elements along the axes.

    References:
        ``torch.var``.

    >>> Var()({}, torch.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """

    correction: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape]]:
        centred, variance, dims = _moments(self, params, x)
        return self.without_dims(variance, dims), (centred, tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        centred, dims = cache
        n = math.prod([centred.shape[d] for d in dims if centred.dim()]) - self.correction
        with_dims = [1 if i in dims else n for i, n in enumerate(centred.shape)]
        check_gy(self, gy, tuple([n for i, n in enumerate(with_dims) if self.keepdim or i not in dims]), centred)
        return params, gy.reshape(with_dims) * centred * (2 / n if n > 0 else 0.0)  # n > 0 except for an empty x


@frozen
class Std(Reduction):
    """Standard deviation over the axes ``dim`` (all axes by default); for equal elements the gradient is 0.

        y  = √(Σ (x - μ)² / (n - c))     μ = Σ x / n,  c = ``correction``
        gx = gy (x - μ) / ((n - c) y), and 0 where y = 0

    Autograd gives NaN or infinity at y = 0; here the gradient is defined as 0.

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.
        correction: 1 for the square root of the unbiased variance, 0 for the standard deviation of a whole population.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        x - μ, ``y`` with all axes, and the axes.

    Raises:
        ValueError: If there are not more than ``correction`` elements along the axes.

    References:
        ``torch.std``.

    >>> Std()({}, torch.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """

    correction: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        centred, y, dims = _moments(self, params, x)
        return self.without_dims(y, dims), (centred, y, tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        centred, y, dims = cache
        n = math.prod([centred.shape[d] for d in dims if centred.dim()]) - self.correction
        gy = in_single(check_gy(self, gy, self.without_dims(y, list(dims)).shape, y)).reshape(y.shape)
        return params, rounded(torch.where(y == 0, 0.0, gy / divisor(y, gy) / n) * centred, centred)


def _moments(layer: Var | Std, params: Params, x: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Return x - μ, y with all axes, and the axes; for equal elements x - μ is 0, without rounding errors."""
    dims = layer.dims(params, x)
    if not x.numel():
        return x, reduce_empty(x, dims, math.nan), dims
    if math.prod([x.shape[d] for d in dims if x.dim()]) <= layer.correction:
        rule = f"x must have more than correction={layer.correction} elements along the axes"
        raise value_error(layer, rule, came(x))
    moments = torch.std_mean if isinstance(layer, Std) else torch.var_mean  # for Std: the variance could overflow
    wide = for_squares(x)
    y, mean = moments(wide, dims, correction=layer.correction, keepdim=True)
    return rounded(wide - mean, x), rounded(y, x), dims
