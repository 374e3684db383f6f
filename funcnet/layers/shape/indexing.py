"""Indexing: a part of x, x in parts, or a place for each number; what was left out has the gradient 0.

Index    y = x[index]                    gx = 0, but gy at index
Split    y = (x₁ x₂ ...) along an axis   gx = (gy₁ gy₂ ...) joined along it
Chunk    the same, in so many parts
OneHot   y[..., c] = 1 where x = c, else 0      x holds integers, and has no gradient

x (...) is of any shape; OneHot's y is (..., classes).
"""

from abc import abstractmethod
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
_Parted = tuple[tuple[Shape, ...], Tensor]  # the shapes of the parts, and an empty tensor of their kind


def _comparable(index: tuple[Part, ...]) -> tuple[Any, ...]:
    """Write slices as tuples, since they have no hash before Python 3.12."""
    return tuple([("slice", part.start, part.stop, part.step) if isinstance(part, slice) else part for part in index])


def _is_part(part: Any) -> bool:
    if isinstance(part, slice):
        return all(end is None or is_whole(end) for end in (part.start, part.stop, part.step)) and (part.step or 1) > 0
    return part is None or part is Ellipsis or is_whole(part)


@frozen
class Index(SingleRule):
    """x[index], by ints, slices, ``...`` and ``None``, the batch axis first: ``Index[:, 0]``, or ``Index((slice(None), 0))``.

    >>> import torch
    >>> Index[:, -1]({}, torch.arange(6.0).reshape(2, 3))
    tensor([2., 5.])

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of their kind.
    Raises   ``ValueError`` for an index of anything else, and when ``x`` has no such elements.
    Source   elementary; indices are read as NumPy's basic ones are.
    """

    rule = "x must have these elements"

    index: tuple[Part, ...] = field(
        converter=lambda index: index if isinstance(index, tuple) else (index,),
        validator=deep_iterable(valid_if(_is_part, "of ints, slices with steps above 0, ... and None")),
        eq=_comparable,
    )

    def __class_getitem__(cls, index: Any) -> "Index":
        return cls(index)

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
    """A layer whose y is a tuple of parts of x along the axis ``dim``."""

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
            raise value_error(self, f"gy must be a tuple of {len(shapes)} parts, as y is", gy)
        if not kind.is_floating_point() or all([part is None for part in gy]):  # noqa: C419
            return params, None
        return params, self.join([self._part(part, shape, kind) for part, shape in zip(gy, shapes, strict=True)])

    def _part(self, gy: Tensor | None, shape: Shape, kind: Tensor) -> Tensor:
        """Return the gradient of one part, with zeros for one that is absent."""
        return kind.new_zeros(shape) if gy is None else check_gy(self, gy, shape, kind)

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return gx: the gradients of the parts, joined again."""
        return torch.cat(parts, self.dim)

    def complaint(self, x: Tensor) -> str | None:
        return axis_complaint(x, self.dim) if x.dim() else f"x must have an axis {self.dim}"


@frozen
class Split(Parts):
    """A tuple of x in parts along the axis ``dim``, by default the last: the reverse of ``Concat``.

    ``split_size`` is the size of each part, of which the last may have less, or a tuple of the sizes of all parts.

    Params   none.
    Cache    the shapes of the parts, and an empty tensor of their kind.
    Raises   ``ValueError`` for sizes that are not whole numbers, when ``x`` has no axis ``dim``, and when the sizes do not
             add up to it.
    Source   elementary, as ``torch.split``.
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
    """A tuple of x in ``chunks`` parts of one size along the axis ``dim``, by default the last; as ``torch.chunk``.

    Params   none.
    Cache    the shapes of the parts, and an empty tensor of their kind.
    Raises   ``ValueError`` for a number of chunks below 1, and when ``x`` has no axis ``dim``.
    Source   elementary, as ``torch.chunk``.
    """

    chunks: int = field(validator=size)
    dim: int = field(default=-1, validator=whole_number)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.chunk(x, self.chunks, self.dim)


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
    dtype: torch.dtype = field(
        default=torch.float32,
        validator=valid_if(lambda got: isinstance(got, torch.dtype) and got.is_floating_point, "a floating one"),
    )

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[()]]:
        if require_tensor(self, params, x).is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            raise value_error(self, "x must be a tensor of integers", x)
        return (x.unsqueeze(-1) == torch.arange(self.num_classes, device=x.device)).to(self.dtype), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Grads, None]:
        return params, None
