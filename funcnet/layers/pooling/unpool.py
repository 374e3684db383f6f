"""Unpooling: each element goes back to the position at which max pooling found it, and the rest is 0.

x and its indices are (N, channels, ...), or without N; y has other lengths after the channels.
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
    """Partial inverse of max pooling along ``axes`` axes."""

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape, Tensor, int]]:
        values, indices, *like = x
        if require_axes(self, params, values).shape != indices.shape or indices.is_cpu is not values.is_cpu or len(like) > 1:
            raise Misfit  # torch would accept indices on the meta device, and write nothing
        lengths = self._lengths(values, *like)
        if like and not self._can_result_from(values, lengths):
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
            return "x must be a pair (x, indices), as max pooling with return_indices=True returns it"
        if axes_complaint(x[0], self.axes):
            return axes_complaint(x[0], self.axes)
        if x[1].is_nested or x[1].layout is not torch.strided or x[1].is_meta:
            return None  # their values cannot be read
        if x[0].shape != x[1].shape:
            return f"x and indices must have the same shape, not {tuple(x[0].shape)} and {tuple(x[1].shape)}"
        lengths = self._lengths(x[0], *x[2:])
        if len(x) == 3 and not self._can_result_from(x[0], lengths):
            return f"the third tensor must have lengths less than a stride from {self._usual_lengths(x[0])}, not {lengths}"
        wrong = [i for i in x[1].flatten().tolist() if not 0 <= i < math.prod(lengths)]
        return f"the indices must be from 0 to {math.prod(lengths) - 1}, not {wrong[0]}" if wrong else None

    def _stride(self) -> Shape:
        return each(self.kernel_size if self.stride is None else self.stride, self.axes)

    def _lengths(self, x: Tensor, like: Tensor | None = None) -> Shape:
        """Return the lengths of y: those of ``like``, else ``output_size``, else what the windows span."""
        if like is not None:
            return tuple(like.shape[-self.axes :])
        if self.output_size is not None:
            return each(self.output_size, self.axes)
        return self._usual_lengths(x)

    def _usual_lengths(self, x: Tensor) -> Shape:
        options = (each(self.kernel_size, self.axes), self._stride(), each(self.padding, self.axes))
        columns = zip(x.shape[-self.axes :], *options, strict=True)
        return tuple([(n - 1) * s - 2 * p + k for n, k, s, p in columns])

    def _can_result_from(self, x: Tensor, lengths: Shape) -> bool:
        """Return whether pooling an input of these lengths can result in x."""
        if len(lengths) != self.axes:
            return False
        rows = zip(lengths, self._usual_lengths(x), self._stride(), strict=True)
        return all([abs(n - usual) < s for n, usual, s in rows])  # noqa: C419


@frozen
class MaxUnpool1d(_MaxUnpool):
    """Partial inverse of ``MaxPool1d(..., return_indices=True)``: each maximum goes back to its position, and the rest is 0.

        y[i]  = x[t] where i = index[t], else 0
        gx[t] = gy[index[t]], and 0 if a later t has the same index

    Rows and channels are independent. Along each axis, the length of y is (length - 1) stride - 2 padding + kernel_size, or
    ``output_size``. A third tensor, (x, indices, like), sets the length of y instead; it may differ from the formula by less than
    a stride, and gets no gradient.

    If windows overlap and two of them have the same maximum, it is written once, and the later one gets the gradient. (torch
    gives it to both, and counts it twice.) With a stride of at least ``kernel_size``, the indices must be distinct, as they are
    when such a pooling returns them.

    Args:
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        padding: Padding of the pooling.
        output_size: Length of y. In ``torch.nn.MaxUnpool1d`` it is an argument of the call.

    Shape:
        x, a pair of values (N, channels, L) and indices of the same shape → y (N, channels, L_out), or all without N.

    Cache:
        The indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.

    Raises:
        ValueError: If x is not a pair of a floating tensor and int64 indices of its shape, if an index is outside y (on the CPU),
            or if ``like`` has impossible lengths.

    References:
        Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1; ``torch.nn.MaxUnpool1d``.

    >>> indices = torch.tensor([[[1, 3]]])
    >>> MaxUnpool1d(2)({}, (torch.tensor([[[5.0, 6.0]]]), indices))
    tensor([[[0., 5., 0., 6.]]])
    """

    axes: ClassVar[int] = 1


@frozen
class MaxUnpool2d(_MaxUnpool):
    """Partial inverse of ``MaxPool2d(..., return_indices=True)``: each maximum goes back to its position, and the rest is 0.

        y[i]  = x[t] where i = index[t], else 0
        gx[t] = gy[index[t]], and 0 if a later t has the same index

    Rows and channels are independent. Along each axis, the length of y is (length - 1) stride - 2 padding + kernel_size, or
    ``output_size``. A third tensor, (x, indices, like), sets the length of y instead; it may differ from the formula by less than
    a stride, and gets no gradient.

    If windows overlap and two of them have the same maximum, it is written once, and the later one gets the gradient. (torch
    gives it to both, and counts it twice.) With a stride of at least ``kernel_size``, the indices must be distinct, as they are
    when such a pooling returns them.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        padding: Padding of the pooling; one number for both axes, or a tuple of two.
        output_size: Length of y; one number for both axes, or a tuple of two. In ``torch.nn.MaxUnpool2d`` it is an argument of
            the call.

    Shape:
        x, a pair of values (N, channels, H, W) and indices of the same shape → y (N, channels, H_out, W_out), or all without N.

    Cache:
        The indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.

    Raises:
        ValueError: If x is not a pair of a floating tensor and int64 indices of its shape, if an index is outside y (on the CPU),
            or if ``like`` has impossible lengths.

    References:
        Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1; ``torch.nn.MaxUnpool2d``.

    >>> MaxUnpool2d(2)({}, (torch.tensor([[[[5.0]]]]), torch.tensor([[[[2]]]])))
    tensor([[[[0., 0.],
              [5., 0.]]]])
    """

    axes: ClassVar[int] = 2


@frozen
class MaxUnpool3d(_MaxUnpool):
    """Partial inverse of ``MaxPool3d(..., return_indices=True)``: each maximum goes back to its position, and the rest is 0.

        y[i]  = x[t] where i = index[t], else 0
        gx[t] = gy[index[t]], and 0 if a later t has the same index

    Rows and channels are independent. Along each axis, the length of y is (length - 1) stride - 2 padding + kernel_size, or
    ``output_size``. A third tensor, (x, indices, like), sets the length of y instead; it may differ from the formula by less than
    a stride, and gets no gradient.

    If windows overlap and two of them have the same maximum, it is written once, and the later one gets the gradient. (torch
    gives it to both, and counts it twice.) With a stride of at least ``kernel_size``, the indices must be distinct, as they are
    when such a pooling returns them.

    Args:
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        padding: Padding of the pooling; one number for all axes, or a tuple of three.
        output_size: Length of y; one number for all axes, or a tuple of three. In ``torch.nn.MaxUnpool3d`` it is an argument of
            the call.

    Shape:
        x, a pair of values (N, channels, D, H, W) and indices of the same shape → y (N, channels, D_out, H_out, W_out), or all
        without N.

    Cache:
        The indices, the shape of ``y``, an empty tensor of the dtype and device of ``x``, and whether there was ``like``.

    Raises:
        ValueError: If x is not a pair of a floating tensor and int64 indices of its shape, if an index is outside y (on the CPU),
            or if ``like`` has impossible lengths.

    References:
        Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1; ``torch.nn.MaxUnpool3d``.

    >>> MaxUnpool3d(2)({}, (torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1, dtype=torch.int64))).shape
    torch.Size([1, 1, 2, 2, 2])
    """

    axes: ClassVar[int] = 3
