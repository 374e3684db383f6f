"""Unpooling: each element goes back to where a max pooling took it from, and the rest is 0.

y[i] = x[t] where i = index[t], else 0        gx[t] = gy[index[t]], and 0 where a later t has the same index

for each row and channel; x and its indices are (N, channels, ...), or without N, and y has other lengths behind the channels.
"""

import math
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import whole_numbers
from funcnet.kernels import index_pooling as kernels
from funcnet.layers.conv.window import Sizes, Windowed, axes_complaint, each, hashable, require_axes
from funcnet.value import frozen


@frozen
class _MaxUnpool(Windowed):
    """Inverse of a max pooling along ``axes`` axes."""

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Tensor, int]]:
        values, indices, *like = x
        if require_axes(self, params, values).shape != indices.shape or indices.is_cpu is not values.is_cpu or len(like) > 1:
            raise Misfit  # torch takes indices on the meta device, and writes nothing
        lengths = self._lengths(values, *like)
        if like and not self._may_have(values, lengths):
            raise Misfit
        y = kernels.scatter_to_index(values, indices, lengths)
        return y, (indices, tuple(y.shape), kind_of(values), len(like))

    def vjp(
        self, params: Params, cache: tuple[Tensor, Shape, Tensor, int], gy: Tensor
    ) -> tuple[Grads, tuple[Tensor | None, ...]]:
        indices, shape, kind, more = cache
        overlap = any(k > s for k, s in zip(each(self.kernel_size, self.axes), self._stride(), strict=True))
        gx = kernels.gather_from_index(check_gy(self, gy, shape, kind), indices, self.axes, twice=overlap)
        return params, (gx, *(None,) * (1 + more))

    def complaint(self, x: Any) -> str | None:
        tensors = isinstance(x, tuple) and len(x) in (2, 3) and all([isinstance(one, Tensor) for one in x[1:]])  # noqa: C419
        if not tensors or x[1].dtype is not torch.int64:
            return "x must be a pair (x, indices), as a max pooling with return_indices gives it"
        if axes_complaint(x[0], self.axes):
            return axes_complaint(x[0], self.axes)
        if x[1].is_nested or x[1].layout is not torch.strided or x[1].is_meta:
            return None  # their numbers cannot be looked at
        if x[0].shape != x[1].shape:
            return f"x and indices must have one shape, not {tuple(x[0].shape)} and {tuple(x[1].shape)}"
        lengths = self._lengths(x[0], *x[2:])
        if len(x) == 3 and not self._may_have(x[0], lengths):
            return f"the third tensor must have lengths less than a stride from {self._usual_lengths(x[0])}, not {lengths}"
        wrong = [i for i in x[1].flatten().tolist() if not 0 <= i < math.prod(lengths)]
        return f"the indices must be those of elements of {lengths}, not {wrong[0]}" if wrong else None

    def _stride(self) -> Shape:
        return each(self.kernel_size if self.stride is None else self.stride, self.axes)

    def _lengths(self, x: Tensor, like: Tensor | None = None) -> Shape:
        """Return the lengths of y: those of ``like``, or ``output_size``, or what the windows take."""
        if like is not None:
            return tuple(like.shape[-self.axes :])
        if self.output_size is not None:
            return each(self.output_size, self.axes)
        return self._usual_lengths(x)

    def _usual_lengths(self, x: Tensor) -> Shape:
        options = (each(self.kernel_size, self.axes), self._stride(), each(self.padding, self.axes))
        columns = zip(x.shape[-self.axes :], *options, strict=True)
        return tuple([(n - 1) * s - 2 * p + k for n, k, s, p in columns])

    def _may_have(self, x: Tensor, lengths: Shape) -> bool:
        """Tell whether a pooling of these lengths can have given x."""
        if len(lengths) != self.axes:
            return False
        rows = zip(lengths, self._usual_lengths(x), self._stride(), strict=True)
        return all([abs(n - usual) < s for n, usual, s in rows])  # noqa: C419


@frozen
class MaxUnpool1d(_MaxUnpool):
    """Inverse of ``MaxPool1d(..., return_indices=True)``: takes its pair (y, indices) back to (N, channels, length).

    The length is (length - 1) stride - 2 padding + kernel_size, or ``output_size``, which the call of ``torch.nn.MaxUnpool1d``
    takes. A third tensor (x, indices, like) has the length of y, less than a stride from the usual one, and no gradient.

    Where windows overlap and two have one maximum it is written once; that counts as the later one's, which alone has the
    gradient. (torch gives it to both, twice as much as there is.) With a stride of at least the kernel the indices must differ,
    as those of such a pooling do.

    Params   none.
    Cache    the indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.
    Raises   ``ValueError`` for sizes below 1, when ``x`` is not a pair of a floating tensor and indices of its shape, for an
             index beyond the output (on CPU), a third tensor of other lengths, and when ``gy`` has not the shape of ``y``.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class MaxUnpool2d(_MaxUnpool):
    """Inverse of ``MaxPool2d(..., return_indices=True)``; as ``MaxUnpool1d``, with one number for both axes or a tuple of two.

    Params   none.
    Cache    the indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.
    Raises   ``ValueError`` as ``MaxUnpool1d`` does.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxUnpool3d(_MaxUnpool):
    """Inverse of ``MaxPool3d(..., return_indices=True)``; as ``MaxUnpool1d``, with one number for all axes or a tuple of three.

    Params   none.
    Cache    the indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.
    Raises   ``ValueError`` as ``MaxUnpool1d`` does.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool3d``'s formula.
    """

    axes: ClassVar[int] = 3
