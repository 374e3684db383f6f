"""Reductions: one number of all elements along some axes of x (...), the others staying. n is how many there are.

Sum   y = Σ x                          gx = gy, repeated along the axes summed over
Mean  y = Σ x / n                      gx = gy / n, repeated along the axes summed over
Prod  y = Π x                          gx = gy · the product of all the others
Max   y = the largest x                gx = gy / k where x = y, else 0      k = how many are equal to y
Min   y = the smallest x               gx: the same
Var   y = Σ (x - μ)² / (n - c)         gx = 2 gy (x - μ) / (n - c)          μ = Σ x / n,  c = correction
Std   y = √Var                         gx = gy (x - μ) / (n - c) / y, and 0 where y = 0

With ``keepdim`` the axes stay, with size 1.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import came, check_gy, kind_of, require_axis, require_dense, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import flag, is_whole, is_whole_tuple, valid_if, value_error, whole
from funcnet.kernels.extremes import for_squares
from funcnet.kernels.operands import divisor
from funcnet.precision import HALF, in_single, rounded
from funcnet.value import frozen

axes = valid_if(
    lambda got: got is None or is_whole(got) or (is_whole_tuple(got) and got != ()),
    "a whole number, a tuple of them, or None for all axes",
)
"""Validate a field that names one axis, several, or with ``None`` all."""

_Reduced = tuple[Shape, Shape, Tensor]  # the shape of x, the axes, and an empty tensor of the kind of x


@frozen
class Reduction(Layer):
    """A layer that leaves one number of the axes ``dim``, or of all without it; ``keepdim`` leaves them there, with size 1."""

    dim: int | Shape | None = field(default=None, validator=axes)
    keepdim: bool = field(default=False, validator=flag)

    @property
    def batch_dependent(self) -> bool:
        return self.dim is None or 0 in (self.dim if isinstance(self.dim, tuple) else (self.dim,))

    def dims(self, params: Params, x: Tensor) -> list[int]:
        """Return the axes of x to go along, counted from the first."""
        count = require_dense(self, require_floating(self, params, x)).dim()
        named = self.dim if isinstance(self.dim, tuple) else range(count) if self.dim is None else (self.dim,)
        return [require_axis(self, x, d) % max(count, 1) for d in named]

    def given(self, y: Tensor, dims: list[int]) -> Tensor:
        """Return y, which has all axes, with those that it is to have."""
        shape = [n for i, n in enumerate(y.shape) if self.keepdim or i not in dims]
        return y.reshape(shape)


@frozen
class Sum(Reduction):
    """Sum over the axes ``dim``, over all of them without it.

    Params   none.
    Cache    the shape of ``x``, the axes, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` has no such axis, or is not a floating tensor.
    Source   elementary.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Reduced]:
        dims = self.dims(params, x)
        return torch.sum(x, dims, keepdim=self.keepdim), (tuple(x.shape), tuple(dims), kind_of(x))

    def vjp(self, params: Params, cache: _Reduced, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _with_dims(self, cache, gy).expand(cache[0])


@frozen
class Mean(Reduction):
    """Mean over the axes ``dim``, over all of them without it.

    Params   none.
    Cache    the shape of ``x``, the axes, and an empty tensor of its kind.
    Raises   ``ValueError`` when ``x`` has no such axis, or is not a floating tensor.
    Source   elementary.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Reduced]:
        dims = self.dims(params, x)
        return torch.mean(x, dims, keepdim=self.keepdim), (tuple(x.shape), tuple(dims), kind_of(x))

    def vjp(self, params: Params, cache: _Reduced, gy: Tensor) -> tuple[Grads, Tensor]:
        count = math.prod([cache[0][d] for d in cache[1] if cache[0]])
        return params, (_with_dims(self, cache, gy) / max(count, 1)).expand(cache[0])


def _with_dims(layer: Reduction, cache: _Reduced, gy: Tensor) -> Tensor:
    """Return gy with all axes of x, the reduced ones of size 1."""
    shape, dims, kind = cache
    with_dims = tuple([1 if i in dims else n for i, n in enumerate(shape)])
    check_gy(layer, gy, with_dims if layer.keepdim else tuple([n for i, n in enumerate(shape) if i not in dims]), kind)
    return gy.reshape(with_dims)


@frozen
class Prod(Reduction):
    """Product along the axes ``dim``, of all without it; exact where factors are 0, since nothing is divided.

    The product of none is 1.

    Params   none.
    Cache    ``x``, the shape of ``y``, and the axes.
    Raises   ``ValueError`` when ``x`` has no such axis, or is not a floating tensor, and when ``gy`` has not the shape of ``y``.
    Source   elementary.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Shape]]:
        dims = self.dims(params, x)
        factors = _flattened(x, dims)
        y = factors.prod(-1, dtype=_accumulation_dtype(x)).to(x.dtype)
        y = y.reshape([1 if i in dims else n for i, n in enumerate(x.shape)])
        given = self.given(y, dims)
        return given, (x, tuple(given.shape), tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        x, shape, dims = cache
        factors = _flattened(x, [*dims])
        others = _products_of_others(factors.to(_accumulation_dtype(x))).to(x.dtype)
        return params, _unflattened(check_gy(self, gy, shape, x).reshape(*factors.shape[:-1], 1) * others, x, [*dims])


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype to multiply in: torch's own product of 256 factors in bfloat16 is 13 % off."""
    return torch.promote_types(x.dtype, torch.float32)


def _dims_last(x: Tensor, dims: list[int]) -> list[int]:
    """Return the axes of x, the reduced ones last."""
    return [i for i in range(x.dim()) if i not in dims] + (dims if x.dim() else [])


def _flattened(x: Tensor, dims: list[int]) -> Tensor:
    """Return x with the reduced axes flattened into one, the last."""
    batch = [n for i, n in enumerate(x.shape) if i not in dims]
    return x.permute(_dims_last(x, dims)).reshape(*batch, math.prod([x.shape[d] for d in dims if x.dim()]))


def _unflattened(g: Tensor, x: Tensor, dims: list[int]) -> Tensor:
    """Undo ``_flattened``: return g with the axes of x."""
    order = _dims_last(x, dims)
    return g.reshape([x.shape[i] for i in order]).permute([order.index(i) for i in range(x.dim())])


def _products_of_others(x: Tensor) -> Tensor:
    """Return for each element the product of all others along the last axis: of those before it and those after it.

    It takes 0.97 ms for 1024×256; torch, which looks for a 0 and divides where there is none, 0.50 ms.
    """
    one = x.new_ones(*x.shape[:-1], min(1, x.shape[-1]))
    before = torch.cat((one, x[..., :-1]), -1).cumprod(-1)
    after = torch.cat((x[..., 1:], one), -1).flip(-1).cumprod(-1).flip(-1)
    return before * after


@frozen
class Max(Reduction):
    """Largest element along the axes ``dim``, of all without it; several that are equally large share the gradient.

    The largest of none is -∞.

    Params   none.
    Cache    ``x``, and ``y`` with all axes.
    Raises   ``ValueError`` when ``x`` has no such axis, or is not a floating tensor.
    Source   elementary; gradients are shared as those of ``torch.amax``.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        return _extreme(self, torch.amax, params, x)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _extreme_grad(self, cache, gy)


@frozen
class Min(Reduction):
    """Smallest element along the axes ``dim``, of all without it; several that are equally small share the gradient.

    The smallest of none is ∞.

    Params   none.
    Cache    ``x``, and ``y`` with all axes.
    Raises   ``ValueError`` when ``x`` has no such axis, or is not a floating tensor.
    Source   elementary; gradients are shared as those of ``torch.amin``.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        return _extreme(self, torch.amin, params, x)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _extreme_grad(self, cache, gy)


def _extreme(layer: Reduction, f: Any, params: Params, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
    dims = layer.dims(params, x)
    y = f(x, dims, keepdim=True) if x.numel() else of_none(x, dims, math.inf if f is torch.amin else -math.inf)
    return layer.given(y, dims), (x, y, tuple(dims))


def of_none(x: Tensor, dims: list[int], value: float) -> Tensor:
    """Return the reduction of an empty x, which torch's kernels refuse."""
    return x.new_full([1 if i in dims else n for i, n in enumerate(x.shape)], value)


def _extreme_grad(layer: Reduction, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> Tensor:
    x, y, dims = cache
    gy, extreme = check_gy(layer, gy, layer.given(y, list(dims)).shape, y).reshape(y.shape), x == y
    if x.dtype not in HALF:  # whose counts are exact as integers only; of 1024×256 numbers float32 saves 40 µs of 290
        extreme = extreme.to(x.dtype)
    return extreme * rounded(gy / extreme.sum(list(dims), keepdim=True), x)


@frozen
class Var(Reduction):
    """Variance along the axes ``dim``, of all without it; ``correction=1`` is the unbiased one, 0 that of a whole population.

    Params   none.
    Cache    x - μ, and the axes.
    Raises   ``ValueError`` when ``x`` has no such axis, or not more than ``correction`` elements along them, or is not a floating
             tensor.
    Source   elementary.
    """

    correction: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape]]:
        centred, variance, dims = _moments(self, params, x)
        return self.given(variance, dims), (centred, tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        centred, dims = cache
        n = math.prod([centred.shape[d] for d in dims if centred.dim()]) - self.correction
        with_dims = [1 if i in dims else n for i, n in enumerate(centred.shape)]
        check_gy(self, gy, tuple([n for i, n in enumerate(with_dims) if self.keepdim or i not in dims]), centred)
        return params, gy.reshape(with_dims) * centred * (2 / n if n > 0 else 0.0)  # n > 0, but for an empty x


@frozen
class Std(Reduction):
    """Standard deviation along the axes ``dim``, of all without it, the root of ``Var``; of equal elements its gradient is 0.

    Params   none.
    Cache    x - μ, ``y`` with all axes, and the axes.
    Raises   ``ValueError`` when ``x`` has no such axis, or not more than ``correction`` elements along them, or is not a floating
             tensor.
    Source   elementary; at 0 the gradient is chosen, where autograd has NaN or infinity.
    """

    correction: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        centred, y, dims = _moments(self, params, x)
        return self.given(y, dims), (centred, y, tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        centred, y, dims = cache
        n = math.prod([centred.shape[d] for d in dims if centred.dim()]) - self.correction
        gy = in_single(check_gy(self, gy, self.given(y, list(dims)).shape, y)).reshape(y.shape)
        return params, rounded(torch.where(y == 0, 0.0, gy / divisor(y, gy) / n) * centred, centred)


def _moments(layer: Var | Std, params: Params, x: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Return x - μ, y with all axes, and the axes; of equal elements x - μ is 0 without rounding."""
    dims = layer.dims(params, x)
    if not x.numel():
        return x, of_none(x, dims, math.nan), dims
    if math.prod([x.shape[d] for d in dims if x.dim()]) <= layer.correction:
        rule = f"x must have more than correction={layer.correction} elements along the axes"
        raise value_error(layer, rule, came(x))
    moments = torch.std_mean if isinstance(layer, Std) else torch.var_mean  # the square of a deviation may overflow
    wide = for_squares(x)
    y, mean = moments(wide, dims, correction=layer.correction, keepdim=True)
    return rounded(wide - mean, x), rounded(y, x), dims
