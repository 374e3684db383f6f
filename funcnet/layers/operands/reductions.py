"""Reductions of x (...): one number for all elements along some axes.

n is the number of elements that are reduced to one. ``keepdim`` keeps the reduced axes, with size 1.
"""

import math

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_axis, require_dense, require_floating
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import flag, is_whole, is_whole_tuple, valid_if
from funcnet.value import frozen

axes = valid_if(
    lambda got: got is None or is_whole(got) or (is_whole_tuple(got) and got != ()),
    "a whole number, a tuple of them, or None for all axes",
)
"""Validator of a field that names one axis, several, or all with ``None``."""

_Reduced = tuple[Shape, Shape, Tensor]  # the shape of x, the axes, and an empty tensor of the dtype of x


@frozen
class Reduction(Layer):
    """Base of layers that reduce the axes ``dim`` (all axes by default) to one number."""

    dim: int | Shape | None = field(default=None, validator=axes)
    keepdim: bool = field(default=False, validator=flag)

    @property
    def batch_dependent(self) -> bool:
        return self.dim is None or 0 in (self.dim if isinstance(self.dim, tuple) else (self.dim,))

    def dims(self, params: Params, x: Tensor) -> list[int]:
        """Return the axes of x to reduce, as numbers of at least 0."""
        count = require_dense(self, require_floating(self, params, x)).dim()
        named = self.dim if isinstance(self.dim, tuple) else range(count) if self.dim is None else (self.dim,)
        return [require_axis(self, x, d) % max(count, 1) for d in named]

    def without_dims(self, y: Tensor, dims: list[int]) -> Tensor:
        """Return y without the reduced axes, which it has with size 1, unless ``keepdim`` keeps them."""
        shape = [n for i, n in enumerate(y.shape) if self.keepdim or i not in dims]
        return y.reshape(shape)


@frozen
class Sum(Reduction):
    """Sum over the axes ``dim`` (all axes by default).

        y  = Σ x
        gx = gy, repeated along the reduced axes

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        The shape of ``x``, the axes, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.sum``.

    >>> Sum(0)({}, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([4., 6.])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Reduced]:
        dims = self.dims(params, x)
        return torch.sum(x, dims, keepdim=self.keepdim), (tuple(x.shape), tuple(dims), kind_of(x))

    def vjp(self, params: Params, cache: _Reduced, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, _with_dims(self, cache, gy).expand(cache[0])


@frozen
class Mean(Reduction):
    """Mean over the axes ``dim`` (all axes by default).

        y  = Σ x / n
        gx = gy / n, repeated along the reduced axes

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        The shape of ``x``, the axes, and an empty tensor of its dtype.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.mean``.

    >>> Mean(-1)({}, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1.5000, 3.5000])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, _Reduced]:
        dims = self.dims(params, x)
        return torch.mean(x, dims, keepdim=self.keepdim), (tuple(x.shape), tuple(dims), kind_of(x))

    def vjp(self, params: Params, cache: _Reduced, gy: Tensor) -> tuple[Grads, Tensor]:
        count = math.prod([cache[0][d] for d in cache[1] if cache[0]])
        return params, (_with_dims(self, cache, gy) / max(count, 1)).expand(cache[0])


def _with_dims(layer: Reduction, cache: _Reduced, gy: Tensor) -> Tensor:
    """Return gy with all axes of x, the reduced ones with size 1."""
    shape, dims, kind = cache
    with_dims = tuple([1 if i in dims else n for i, n in enumerate(shape)])
    check_gy(layer, gy, with_dims if layer.keepdim else tuple([n for i, n in enumerate(shape) if i not in dims]), kind)
    return gy.reshape(with_dims)


@frozen
class Prod(Reduction):
    """Product over the axes ``dim`` (all axes by default). The gradient is exact at zeros: nothing is divided.

        y  = Π x
        gx = gy · the product of all other elements

    The product of no elements is 1.

    Args:
        dim: The axis, or a tuple of axes; ``None`` for all.
        keepdim: Whether to keep the reduced axes, with size 1.

    Shape:
        x (...) → y (...) without the reduced axes

    Cache:
        ``x``, not copied, the shape of ``y``, and the axes.

    Raises:
        ValueError: If x has no such axis.

    References:
        ``torch.prod``.

    >>> Prod()({}, torch.tensor([2.0, 3.0]))
    tensor(6.)
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Shape]]:
        dims = self.dims(params, x)
        factors = _flatten_dims(x, dims)
        y = factors.prod(-1, dtype=_accumulation_dtype(x)).to(x.dtype)
        y = y.reshape([1 if i in dims else n for i, n in enumerate(x.shape)])
        given = self.without_dims(y, dims)
        return given, (x, tuple(given.shape), tuple(dims))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape, Shape], gy: Tensor) -> tuple[Grads, Tensor]:
        x, shape, dims = cache
        factors = _flatten_dims(x, [*dims])
        others = _products_of_others(factors.to(_accumulation_dtype(x))).to(x.dtype)
        return params, _unflatten_dims(check_gy(self, gy, shape, x).reshape(*factors.shape[:-1], 1) * others, x, [*dims])


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype to multiply in: torch's own product of 256 factors in bfloat16 is 13 % off."""
    return torch.promote_types(x.dtype, torch.float32)


def _dims_last(x: Tensor, dims: list[int]) -> list[int]:
    """Return the axes of x, with the reduced ones last."""
    return [i for i in range(x.dim()) if i not in dims] + (dims if x.dim() else [])


def _flatten_dims(x: Tensor, dims: list[int]) -> Tensor:
    """Return x with the reduced axes flattened into one last axis."""
    batch = [n for i, n in enumerate(x.shape) if i not in dims]
    return x.permute(_dims_last(x, dims)).reshape(*batch, math.prod([x.shape[d] for d in dims if x.dim()]))


def _unflatten_dims(g: Tensor, x: Tensor, dims: list[int]) -> Tensor:
    """Undo ``_flatten_dims``: return g with the axes of x."""
    order = _dims_last(x, dims)
    return g.reshape([x.shape[i] for i in order]).permute([order.index(i) for i in range(x.dim())])


def _products_of_others(x: Tensor) -> Tensor:
    """Return for each element the product of all others along the last axis: those before it times those after it.

    This takes 0.97 ms for 1024×256. Torch, which searches for zeros and divides if there are none, takes 0.50 ms.
    """
    one = x.new_ones(*x.shape[:-1], min(1, x.shape[-1]))
    before = torch.cat((one, x[..., :-1]), -1).cumprod(-1)
    after = torch.cat((x[..., 1:], one), -1).flip(-1).cumprod(-1).flip(-1)
    return before * after


def reduce_empty(x: Tensor, dims: list[int], value: float) -> Tensor:
    """Return the reduction of an empty x, which torch's kernels reject."""
    return x.new_full([1 if i in dims else n for i, n in enumerate(x.shape)], value)
