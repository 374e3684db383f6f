"""Indexing, splitting and one-hot encoding. Elements of x that y leaves out have the gradient 0.

x (...) has any shape.
"""

from abc import ABCMeta, abstractmethod
from types import EllipsisType
from typing import Any

import torch
from attrs import field
from attrs.validators import deep_iterable
from torch import Tensor

from funcnet.checks import axis_complaint, check_gy, kind_of, require_dense, require_tensor
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import MOST, is_whole, is_whole_tuple, size, valid_if, value_error, whole_number
from funcnet.layers.shape.reshaping import Reshaped, SingleRule
from funcnet.value import frozen

Part = int | slice | EllipsisType | None
_Parted = tuple[tuple[Shape, ...], Tensor]  # the shapes of the parts, and an empty tensor of their dtype


def _hashable(index: tuple[Part, ...]) -> tuple[Any, ...]:
    """Convert slices to tuples: they are not hashable before Python 3.12."""
    return tuple([("slice", part.start, part.stop, part.step) if isinstance(part, slice) else part for part in index])


def _is_part(part: Any) -> bool:
    if isinstance(part, slice):
        return all(end is None or is_whole(end) for end in (part.start, part.stop, part.step)) and (part.step or 1) > 0
    return part is None or part is Ellipsis or is_whole(part)


class _Indexed(ABCMeta):
    """Makes ``Index[:, 0]`` a layer; a type checker would take ``__class_getitem__`` for type arguments."""

    def __getitem__(cls, index: Any) -> "Index":
        return Index(index)


@frozen
class Index(SingleRule, metaclass=_Indexed):
    """Index x with ints, slices, ``...`` and ``None``.

        y         = x[index]
        gx[index] = gy, 0 elsewhere

    ``Index[:, 0]`` is short for ``Index((slice(None), 0))``. The first entry indexes the batch axis.

    Args:
        index: An int, a slice with a positive step, ``...``, ``None``, or a tuple of them, as in NumPy's basic indexing.

    Shape:
        x (...) → y (...), with the shape of ``x[index]``

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of their dtype.

    Raises:
        ValueError: If x does not have these elements.

    References:
        ``torch.Tensor.__getitem__``.

    >>> import torch
    >>> Index[:, -1]({}, torch.arange(6.0).reshape(2, 3))
    tensor([2., 5.])
    """

    rule = "x must have these elements"

    index: tuple[Part, ...] = field(
        converter=lambda index: index if isinstance(index, tuple) else (index,),
        validator=deep_iterable(valid_if(_is_part, "of ints, slices with steps above 0, ... and None")),
        eq=_hashable,
    )

    @property
    def batch_dependent(self) -> bool:
        return bool(self.index) and self.index[0] is not Ellipsis and self.index[0] != slice(None)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Reshaped]:
        y = require_dense(self, require_tensor(self, params, x))[self.index]
        return y, (tuple(x.shape), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Reshaped, gy: Tensor) -> tuple[Grads, Tensor]:
        gx = check_gy(self, gy, *cache[1:]).new_zeros(cache[0])
        gx[self.index] = gy
        return params, gx


@frozen
class Parts(Layer):
    """Base of layers that divide x along the axis ``dim``; y is a tuple of the parts."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The axis along which x is divided: a field of the subclass."""

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    @abstractmethod
    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return y."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[tuple[Tensor, ...], _Parted]:
        y = self.parts(require_dense(self, require_tensor(self, params, x)))
        return y, (tuple([tuple(part.shape) for part in y]), kind_of(x))

    def vjp(self, params: Params, cache: _Parted, gy: tuple[Tensor | None, ...]) -> tuple[Grads, Tensor | None]:
        shapes, kind = cache
        if not isinstance(gy, (tuple, list)) or len(gy) != len(shapes):
            raise value_error(self, f"gy must be a tuple of {len(shapes)} parts, like y", gy)
        if not kind.is_floating_point() or all([part is None for part in gy]):  # noqa: C419
            return params, None
        return params, self.join([self._part(part, shape, kind) for part, shape in zip(gy, shapes, strict=True)])

    def _part(self, gy: Tensor | None, shape: Shape, kind: Tensor) -> Tensor:
        """Return the gradient of one part, zeros if it is absent."""
        return kind.new_zeros(shape) if gy is None else check_gy(self, gy, shape, kind)

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return gx: the gradients of the parts, joined."""
        return torch.cat(parts, self.dim)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, self.dim) if x.dim() else f"x must have an axis {self.dim}"


@frozen
class Split(Parts):
    """Split x into parts of given sizes along the axis ``dim``: the reverse of ``Concat``.

        y  = (x₁, x₂, ...) along the axis
        gx = (gy₁ gy₂ ...) joined along the axis

    Args:
        split_size: Size of each part, where the last can be smaller; or a tuple of the sizes of all parts.
        dim: The axis.

    Shape:
        x (..., n, ...) → (y₁, y₂, ...), each (..., size, ...)

    Cache:
        The shapes of the parts, and an empty tensor of their dtype.

    Raises:
        ValueError: If a tuple of sizes does not add up to the axis.

    References:
        ``torch.split``.

    >>> import torch
    >>> Split((1, 2))({}, torch.tensor([1.0, 2.0, 3.0]))
    (tensor([1.]), tensor([2., 3.]))
    """

    split_size: int | tuple[int, ...] = field(
        validator=valid_if(
            lambda got: is_whole_tuple(got, 0) and got != () if isinstance(got, tuple) else is_whole(got) and got >= 1,
            "a whole number of at least 1, or a tuple of sizes",
            most=MOST,
        )
    )
    dim: int = field(default=-1, validator=whole_number)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        sizes = self.split_size
        return torch.split(x, list(sizes) if isinstance(sizes, tuple) else sizes, self.dim)

    def complaint(self, x: Tensor) -> str | None:
        return super().complaint(x) or f"split_size must add up to the axis {self.dim} of x"


@frozen
class Chunk(Parts):
    """Split x into ``chunks`` parts of equal size along the axis ``dim``.

        y  = (x₁, x₂, ...) along the axis
        gx = (gy₁ gy₂ ...) joined along the axis

    Args:
        chunks: Number of parts. If it does not divide the axis, the last part is smaller, and there can be fewer parts, as in
            ``torch.chunk``.
        dim: The axis.

    Shape:
        x (..., n, ...) → (y₁, y₂, ...), each (..., size, ...)

    Cache:
        The shapes of the parts, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has no axis ``dim``.

    References:
        ``torch.chunk``.

    >>> import torch
    >>> Chunk(2)({}, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    (tensor([1., 2.]), tensor([3., 4.]))
    """

    chunks: int = field(validator=size)
    dim: int = field(default=-1, validator=whole_number)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.chunk(x, self.chunks, self.dim)


@frozen
class OneHot(Layer):
    """Encode integers as one-hot vectors along a new last axis.

        y[..., c] = 1 where x = c, else 0
        gx is ``None``: x holds integers

    Integers outside 0 to ``num_classes`` - 1 give zeros and no error, as in ``jax.nn.one_hot``: a check would have to read the
    values. Unlike ``torch.nn.functional.one_hot``, the layer returns floating numbers, ready for the next layer.

    Args:
        num_classes: Number of classes.
        dtype: The floating dtype of y.

    Shape:
        x (...), integers → y (..., num_classes)

    Cache:
        ``()``.

    Raises:
        ValueError: If x does not hold integers.

    References:
        ``jax.nn.one_hot``.

    >>> OneHot(3)({}, torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """

    num_classes: int = field(validator=size)
    dtype: torch.dtype = field(
        default=torch.float32,
        validator=valid_if(lambda got: isinstance(got, torch.dtype) and got.is_floating_point, "a floating dtype"),
    )

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        if require_tensor(self, params, x).is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            raise value_error(self, "x must be a tensor of integers", x)
        return (x.unsqueeze(-1) == torch.arange(self.num_classes, device=x.device)).to(self.dtype), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Grads, None]:
        return params, None
