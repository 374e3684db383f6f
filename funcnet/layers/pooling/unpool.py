"""Unpooling: each element goes back to where a max pooling took it from, and the rest is 0.

y[i] = x[t] where i = index[t], else 0        gx[t] = gy[index[t]], and 0 where a later t has the same index

for each row and channel; x and its indices are (N, channels, ...), or without N, and y has other lengths behind the channels.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, require_no_params
from funcnet.contract import Params, Rng, Shape
from funcnet.errors import value_error
from funcnet.kernels import pooling as kernels
from funcnet.layers.conv.window import Sizes, Windowed, axes_complaint, each, hashable, sizes
from funcnet.value import frozen


@frozen
class _MaxUnpool(Windowed):
    """Inverse of a max pooling along ``axes`` axes."""

    kernel_size: Sizes = field(converter=hashable, validator=sizes(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=sizes(0))
    output_size: Sizes | None = field(default=None, converter=hashable, validator=sizes(1, optional=True))

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Shape]]:
        require_no_params(self, params)
        values, indices = self._pair(x)
        lengths = self._lengths(values)
        try:
            y = kernels.scatter_to_index(values, indices, lengths)
        except RuntimeError as error:
            raise value_error(self, f"the indices must be those of elements of {lengths}", str(error).split("\n")[0]) from None
        return y, (indices, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Tensor, Shape], gy: Tensor) -> tuple[Params, tuple[Tensor, None]]:
        indices, shape = cache
        overlap = any(k > s for k, s in zip(each(self.kernel_size, self.axes), self._stride(), strict=True))
        return params, (kernels.gather_from_index(check_gy(self, gy, shape), indices, self.axes, twice=overlap), None)

    def _pair(self, x: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(x, tuple) or len(x) != 2 or not isinstance(x[1], Tensor) or x[1].is_floating_point():
            raise value_error(self, "x must be a pair (x, indices), as a max pooling with return_indices gives it", x)
        rule = axes_complaint(x[0], self.axes)
        if rule or x[0].shape != x[1].shape:
            shapes = f"x of shape {tuple(x[0].shape)} and indices of shape {tuple(x[1].shape)}"
            raise value_error(self, rule or "x and indices must have one shape", shapes)
        return x

    def _stride(self) -> Shape:
        return each(self.kernel_size if self.stride is None else self.stride, self.axes)

    def _lengths(self, x: Tensor) -> Shape:
        if self.output_size is not None:
            return each(self.output_size, self.axes)
        options = (each(self.kernel_size, self.axes), self._stride(), each(self.padding, self.axes))
        columns = zip(x.shape[-self.axes :], *options, strict=True)
        return tuple([(n - 1) * s - 2 * p + k for n, k, s, p in columns])


@frozen
class MaxUnpool1d(_MaxUnpool):
    """Inverse of ``MaxPool1d(..., return_indices=True)``: takes its pair (y, indices) back to (N, channels, length).

    The length is (length - 1) stride - 2 padding + kernel_size, or ``output_size``, which the call of ``torch.nn.MaxUnpool1d``
    takes. Where windows overlap and two have one maximum it is written once; that counts as the later one's, which alone has
    the gradient. (torch gives it to both, twice as much as there is.) With a stride of at least the kernel the indices must
    differ, as those of such a pooling do.

    Params   none.
    Cache    the indices, and the shape of ``y``.
    Raises   ``ValueError`` for sizes below 1, when ``x`` is not a pair of a floating tensor and indices of its shape, for an
             index beyond the output (on CPU), and when ``gy`` has not the shape of ``y``.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class MaxUnpool2d(_MaxUnpool):
    """Inverse of ``MaxPool2d(..., return_indices=True)``; as ``MaxUnpool1d``, with one number for both axes or a tuple of two.

    Params   none.
    Cache    the indices, and the shape of ``y``.
    Raises   ``ValueError`` as ``MaxUnpool1d`` does.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class MaxUnpool3d(_MaxUnpool):
    """Inverse of ``MaxPool3d(..., return_indices=True)``; as ``MaxUnpool1d``, with one number for all axes or a tuple of three.

    Params   none.
    Cache    the indices, and the shape of ``y``.
    Raises   ``ValueError`` as ``MaxUnpool1d`` does.
    Source   Zeiler & Fergus 2014, section 2.1; ``torch.nn.MaxUnpool3d``'s formula.
    """

    axes: ClassVar[int] = 3
