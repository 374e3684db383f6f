"""Average and sum pooling: a window slides along x, and each output is the mean or the sum of the window.

x (N, channels, ...) or (channels, ...). The indices t, k and i have one number for each axis (one to three). The padding is 0.
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
"""The cache: shape and layout of x, shape of y, and an empty tensor of the dtype and device of x."""


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
    """Mean of each window that slides along one axis.

        y[t]  = Σ_k x[s t + k - p] / m[t]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]            m[t] the number of elements in window t

    Rows and channels are pooled separately. L_out = ⌊(L + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up
    instead, but no window begins in the padding at the end.

    Args:
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``.
        ceil_mode: Whether the last window can reach beyond the end of x.
        count_include_pad: Whether m[t] counts the padding.
        divisor_override: Divisor to use instead of m[t]; ``torch.nn.AvgPool1d`` has no such argument.

    Shape:
        x (N, channels, L) → y (N, channels, L_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.AvgPool1d``.

    >>> import torch
    >>> AvgPool1d(2)({}, torch.ones(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    axes: ClassVar[int] = 1


@frozen
class AvgPool2d(_AvgPool):
    """Mean of each window that slides over two axes.

        y[t]  = Σ_k x[s t + k - p] / m[t]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]            m[t] the number of elements in window t

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis, the length of y
    is ⌊(length + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins in the padding at
    the end.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``; one number for both axes, or a tuple of two.
        ceil_mode: Whether the last window can reach beyond the end of x.
        count_include_pad: Whether m[t] counts the padding.
        divisor_override: Divisor to use instead of m[t]; ``None`` to divide by m[t].

    Shape:
        x (N, channels, H, W) → y (N, channels, H_out, W_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.AvgPool2d``.

    >>> import torch
    >>> AvgPool2d(2)({}, torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3, 4, 4])
    """

    axes: ClassVar[int] = 2


@frozen
class AvgPool3d(_AvgPool):
    """Mean of each window that slides over three axes.

        y[t]  = Σ_k x[s t + k - p] / m[t]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t] / m[t]            m[t] the number of elements in window t

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis, the length of
    y is ⌊(length + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins in the padding
    at the end.

    Args:
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``; one number for all axes, or a tuple of
            three.
        ceil_mode: Whether the last window can reach beyond the end of x.
        count_include_pad: Whether m[t] counts the padding.
        divisor_override: Divisor to use instead of m[t]; ``None`` to divide by m[t].

    Shape:
        x (N, channels, D, H, W) → y (N, channels, D_out, H_out, W_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.AvgPool3d``.

    >>> import torch
    >>> AvgPool3d(2)({}, torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    axes: ClassVar[int] = 3


@frozen
class _SumPool(_MeanPool):
    """Sum of each window."""

    def __attrs_post_init__(self) -> None:
        self._set_options(self.kernel_size, self.stride, self.padding, self.ceil_mode, True, 1)


@frozen
class SumPool1d(_SumPool):
    """Sum of each window that slides along one axis.

        y[t]  = Σ_k x[s t + k - p]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t]

    Rows and channels are pooled separately. L_out = ⌊(L + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up
    instead, but no window begins in the padding at the end.

    Args:
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, L) → y (N, channels, L_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``AvgPool1d`` times the size of the window.
    """

    axes: ClassVar[int] = 1


@frozen
class SumPool2d(_SumPool):
    """Sum of each window that slides over two axes.

        y[t]  = Σ_k x[s t + k - p]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t]

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis, the length of y
    is ⌊(length + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins in the padding at
    the end.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``; one number for both axes, or a tuple of two.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, H, W) → y (N, channels, H_out, W_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``AvgPool2d`` times the size of the window.
    """

    axes: ClassVar[int] = 2


@frozen
class SumPool3d(_SumPool):
    """Sum of each window that slides over three axes.

        y[t]  = Σ_k x[s t + k - p]                         s = stride, p = padding before x
        gx[i] = Σ_{k, t: s t + k - p = i} gy[t]

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis, the length of
    y is ⌊(length + 2 padding - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins in the padding
    at the end.

    Args:
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        padding: Number of zeros before and after x, at most half of ``kernel_size``; one number for all axes, or a tuple of
            three.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, D_out, H_out, W_out), or both without N.

    Cache:
        The shapes of ``x`` and ``y``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``AvgPool3d`` times the size of the window.
    """

    axes: ClassVar[int] = 3
