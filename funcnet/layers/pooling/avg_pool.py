"""Average and sum pooling: a window slides along x, and each output is the mean or the sum of what it covers.

    AvgPool   y[t] = Σ_k x[s t + k - p] / m[t]      gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]
    SumPool   y[t] = Σ_k x[s t + k - p]             gx[i] = Σ_{k, t: s t + k - p = i} gy[t]

for each row and channel; t, k, i are one number per axis (one to three), s is the stride, p the padding, and m[t] the number of
elements in the window. With ``ceil_mode`` the last window may reach beyond the end.
"""

from typing import ClassVar

from attrs import field, validators
from torch import Tensor

from funcnet.checks import check_gy, kind_of
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import flag, size, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.windows import Origin, origin
from funcnet.layers.conv.window import Sizes, hashable, require_axes
from funcnet.layers.pooling.sliding import SlidingPool
from funcnet.value import frozen

Mean = tuple[Origin, Shape, Tensor]
"""The cache of a mean or sum: the shape and layout of x, the shape of y, and an empty tensor of the dtype and device of x."""


@frozen
class _MeanPool(SlidingPool):
    """Mean of each window, or its sum over another divisor."""

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    ceil_mode: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Mean]:
        y = kernels.avg_pool(require_axes(self, params, x), *self._options)
        return y, (origin(x, self.axes), tuple(y.shape), kind_of(x))

    def vjp(self, params: Params, cache: Mean, gy: Tensor) -> tuple[Grads, Tensor]:
        of, shape, kind = cache
        return params, kernels.avg_pool_backward(check_gy(self, gy, shape, kind), of, *self._options)


@frozen
class _AvgPool(_MeanPool):
    """Mean of each window."""

    ensemble_mode = "loop if large"

    count_include_pad: bool = field(default=True, validator=flag)
    divisor_override: int | None = field(default=None, validator=validators.optional(size))

    def __attrs_post_init__(self) -> None:
        self._set_options(
            self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )


@frozen
class AvgPool1d(_AvgPool):
    """Mean of each window of (N, channels, length), or (channels, length); arguments as in ``torch.nn.AvgPool1d``.

    The output is as long as that of ``MaxPool1d``. The padding is 0, and counts as elements with ``count_include_pad``; with
    ``divisor_override``, which of torch's only two and three axes have, the sum is divided by that instead.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` for sizes below 1, a padding of more than half the kernel, an ``x`` that is not floating, or has other
             axes, or is shorter than the window, and a ``gy`` that has not the shape of ``y``.
    Source   ``torch.nn.AvgPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class AvgPool2d(_AvgPool):
    """Mean of each window of (N, channels, height, width), or without N; arguments as in ``torch.nn.AvgPool2d``.

    Each size is one number for both axes, or a tuple of two; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   ``torch.nn.AvgPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class AvgPool3d(_AvgPool):
    """Mean of each window of (N, channels, depth, height, width), or without N; arguments as in ``torch.nn.AvgPool3d``.

    Each size is one number for all axes, or a tuple of three; else as ``AvgPool1d``.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   ``torch.nn.AvgPool3d``'s formula.
    """

    axes: ClassVar[int] = 3


@frozen
class _SumPool(_MeanPool):
    """Sum of each window."""

    def __attrs_post_init__(self) -> None:
        self._set_options(self.kernel_size, self.stride, self.padding, self.ceil_mode, True, 1)


@frozen
class SumPool1d(_SumPool):
    """Sum of each window of (N, channels, length), or (channels, length); the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool1d`` times the size of the window.
    """

    axes: ClassVar[int] = 1


@frozen
class SumPool2d(_SumPool):
    """Sum of each window of (N, channels, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool2d`` times the size of the window.
    """

    axes: ClassVar[int] = 2


@frozen
class SumPool3d(_SumPool):
    """Sum of each window of (N, channels, depth, height, width), or without N; the padding is 0.

    Params   none.
    Cache    the shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.
    Raises   ``ValueError`` as ``AvgPool1d`` does.
    Source   elementary: ``AvgPool3d`` times the size of the window.
    """

    axes: ClassVar[int] = 3
