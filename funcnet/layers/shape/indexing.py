"""Indexing: a part of x, x in parts, or a place for each number; what was left out has the gradient 0.

Index    y = x[index]                    gx = 0, but gy at index
Split    y = (x₁ x₂ ...) along an axis   gx = (gy₁ gy₂ ...) joined along it
Chunk    the same, in so many parts
OneHot   y[..., c] = 1 where x = c, else 0      x holds integers, and has no gradient

x (...) is of any shape; OneHot's y is (..., classes).
"""

from types import EllipsisType
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import require_axis, require_no_params, require_tensor
from funcnet.contract import Layer, Params, Rng
from funcnet.errors import is_whole, size, value_error, whole_number
from funcnet.value import frozen

Part = int | slice | EllipsisType | None


def _as_tuple(index: Any) -> Any:
    return index if isinstance(index, tuple) else (index,)


def _comparable(index: tuple[Part, ...]) -> tuple[Any, ...]:
    """Write slices as tuples, since they have no hash before Python 3.12."""
    return tuple([("slice", part.start, part.stop, part.step) if isinstance(part, slice) else part for part in index])


def _parts(layer: Any, attribute: Any, got: tuple[Any, ...]) -> None:
    for part in got:
        ends = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
        whole = all(end is None or is_whole(end) for end in ends)
        if part is not Ellipsis and not (whole and (len(ends) == 1 or part.step is None or part.step > 0)):
            raise value_error("Index", "index must be of ints, slices with steps above 0, ... and None", repr(part))


@frozen
class Index(Layer):
    """x[index], by ints, slices, ``...`` and ``None``, the batch axis first: ``Index[:, 0]``, or ``Index((slice(None), 0))``.

    >>> import torch
    >>> Index[:, -1]({}, torch.arange(6.0).reshape(2, 3))
    tensor([2., 5.])

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for an index of anything else, and when ``x`` has no such elements.
    Source   elementary; indices are read as NumPy's basic ones are.
    """

    index: tuple[Part, ...] = field(converter=_as_tuple, validator=_parts, eq=_comparable)

    def __class_getitem__(cls, index: Any) -> "Index":
        return cls(index)

    @property
    def batch_dependent(self) -> bool:
        return bool(self.index) and self.index[0] is not Ellipsis and self.index[0] != slice(None)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[int, ...]]:
        require_tensor(self, params, x)
        try:
            return x[self.index], tuple(x.shape)
        except IndexError as error:
            raise value_error(self, f"x must have these elements ({error})", f"x of shape {tuple(x.shape)}") from None

    def vjp(self, params: Params, cache: tuple[int, ...], gy: Tensor) -> tuple[Params, Tensor]:
        gx = gy.new_zeros(cache)
        gx[self.index] = gy
        return params, gx


def _split(layer: Any, attribute: Any, got: Any) -> None:
    if got == () or not all(is_whole(n) and n >= isinstance(got, int) for n in _as_tuple(got)):
        raise value_error("Split", "split_size must be a whole number of at least 1, or a tuple of sizes", repr(got))


@frozen
class Split(Layer):
    """A tuple of x in parts along the axis ``dim``, by default the last: the reverse of ``Concat``.

    ``split_size`` is the size of each part, of which the last may have less, or a tuple of the sizes of all parts.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for sizes that are not whole numbers, when ``x`` has no axis ``dim``, and when the sizes do not
             add up to it.
    Source   elementary, as ``torch.split``.
    """

    split_size: int | tuple[int, ...] = field(validator=_split)
    dim: int = field(default=-1, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        require_tensor(self, params, x)
        length = x.shape[require_axis(self, x, self.dim)] if x.dim() else -1
        sizes = self.split_size
        if length < 0 or (isinstance(sizes, tuple) and sum(sizes) != length):
            raise value_error(self, f"split_size must add up to the axis {self.dim} of x", f"x of shape {tuple(x.shape)}")
        return torch.split(x, list(sizes) if isinstance(sizes, tuple) else sizes, self.dim), tuple(x.shape)

    def vjp(self, params: Params, cache: tuple[int, ...], gy: tuple[Tensor, ...]) -> tuple[Params, Tensor]:
        return params, _joined(self, cache, gy)


def _joined(layer: "Split | Chunk", shape: tuple[int, ...], gy: tuple[Tensor, ...]) -> Tensor:
    """Join the parts of gy, which must have the shape of x together."""
    gx = torch.cat(gy, layer.dim)
    if tuple(gx.shape) != shape:
        raise value_error(layer, f"the parts of gy must join to the shape of x, {shape}", f"the shape {tuple(gx.shape)}")
    return gx


@frozen
class Chunk(Layer):
    """A tuple of x in ``chunks`` parts of one size along the axis ``dim``, by default the last; as ``torch.chunk``.

    Params   none.
    Cache    the shape of ``x``.
    Raises   ``ValueError`` for a number of chunks below 1, and when ``x`` has no axis ``dim``.
    Source   elementary, as ``torch.chunk``.
    """

    chunks: int = field(validator=size)
    dim: int = field(default=-1, validator=whole_number)

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        if not require_tensor(self, params, x).dim():
            raise value_error(self, f"x must have an axis {self.dim}", "x of shape ()")
        return torch.chunk(x, self.chunks, require_axis(self, x, self.dim)), tuple(x.shape)

    def vjp(self, params: Params, cache: tuple[int, ...], gy: tuple[Tensor, ...]) -> tuple[Params, Tensor]:
        return params, _joined(self, cache, gy)


def _floating(layer: Any, attribute: Any, got: Any) -> None:
    if not isinstance(got, torch.dtype) or not got.is_floating_point:
        raise value_error("OneHot", "dtype must be a floating one", repr(got))


@frozen
class OneHot(Layer):
    """A last axis of ``num_classes`` zeros with a 1 at the place that x names; all zeros for a number without a place.

    Unlike ``torch.nn.functional.one_hot``, y is floating, of ``dtype``, for the layer that follows; and no value is read, so that
    numbers out of range are not refused, as with ``jax.nn.one_hot``.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for a ``num_classes`` below 1, a dtype that is not floating, and when ``x`` does not hold integers.
    Source   ``jax.nn.one_hot``.
    """

    num_classes: int = field(validator=size)
    dtype: torch.dtype = field(default=torch.float32, validator=_floating)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        require_no_params(self, params)
        if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            raise value_error(self, "x must be a tensor of integers", x)
        return (x.unsqueeze(-1) == torch.arange(self.num_classes, device=x.device)).to(self.dtype), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, None]:
        return params, None
