"""Max pooling: a window slides along x, and each output is the largest element of the window.

x (N, channels, ...) or (channels, ...). The indices t, k and i have one number for each axis (one to three). The padding is -∞.
"""

from typing import Any, ClassVar

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of
from funcnet.contract import Grads, Params, Rng
from funcnet.errors import flag, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.windows import Origin, origin
from funcnet.layers.conv.window import Sizes, each, hashable, require_axes
from funcnet.layers.pooling.sliding import SlidingPool
from funcnet.value import frozen


@frozen
class _MaxPool(SlidingPool):
    """Largest element of each window."""

    ensemble_mode = "loop if large"

    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    padding: Sizes = field(default=0, converter=hashable, validator=whole_numbers(0))
    dilation: Sizes = field(default=1, converter=hashable, validator=whole_numbers(1))
    return_indices: bool = field(default=False, validator=flag)
    ceil_mode: bool = field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        self._set_options(self.kernel_size, self.stride, self.padding, each(self.dilation, self.axes), self.ceil_mode)

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Any:
        if self.return_indices:
            return self.apply(params, x)[0]
        return kernels.max_pool_values(require_axes(self, params, x), *self._options)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Origin, Tensor]]:
        require_axes(self, params, x)
        y, indices = kernels.max_pool(x, *self._options)
        return (y, indices) if self.return_indices else y, (indices, origin(x, self.axes), kind_of(x))

    def vjp(self, params: Params, cache: tuple[Tensor, Origin, Tensor], gy: Any) -> tuple[Grads, Tensor]:
        indices, of, kind = cache
        gy = check_gy(self, gy[0] if self.return_indices else gy, indices.shape, kind)
        return params, kernels.max_pool_backward(gy, indices, of, *self._options)


@frozen
class MaxPool1d(_MaxPool):
    """Largest element of each window that slides along one axis.

        y[t]  = max_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. L_out = ⌊(L + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1;
    ``ceil_mode`` rounds up instead, but no window begins in the padding at the end. Ties go to the first element; among several
    NaNs, the last one counts.

    Args:
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        padding: Number of elements of -∞ before and after x, at most half of ``kernel_size``.
        dilation: Step between the elements of a window.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels,
            as ``MaxUnpool1d`` expects.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, L) → y (N, channels, L_out), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.MaxPool1d``.

    >>> import torch
    >>> MaxPool1d(2)({}, torch.ones(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    axes: ClassVar[int] = 1


@frozen
class MaxPool2d(_MaxPool):
    """Largest element of each window that slides over two axes.

        y[t]  = max_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis, the length of y
    is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins
    in the padding at the end. Ties go to the first element; among several NaNs, the last one counts.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        padding: Number of elements of -∞ before and after x, at most half of ``kernel_size``; one number for both axes, or a
            tuple of two.
        dilation: Step between the elements of a window; one number for both axes, or a tuple of two.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels,
            as ``MaxUnpool2d`` expects.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, H, W) → y (N, channels, H_out, W_out), or both without N; with ``return_indices`` a pair of them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.MaxPool2d``.

    >>> import torch
    >>> MaxPool2d(2)({}, torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3, 4, 4])
    """

    axes: ClassVar[int] = 2


@frozen
class MaxPool3d(_MaxPool):
    """Largest element of each window that slides over three axes.

        y[t]  = max_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose maximum is at i

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis, the length of
    y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window
    begins in the padding at the end. Ties go to the first element; among several NaNs, the last one counts.

    Args:
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        padding: Number of elements of -∞ before and after x, at most half of ``kernel_size``; one number for all axes, or a tuple
            of three.
        dilation: Step between the elements of a window; one number for all axes, or a tuple of three.
        return_indices: Whether y is a pair (values, indices). The indices are positions in the flattened axes after the channels,
            as ``MaxUnpool3d`` expects.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, D_out, H_out, W_out), or both without N; with ``return_indices`` a pair of
        them.

    Cache:
        The indices, the shape of ``x``, and an empty tensor of the dtype and device of ``x``.

    Raises:
        ValueError: If the padding is more than half of the kernel, or if x is shorter than the window.

    References:
        ``torch.nn.MaxPool3d``.

    >>> import torch
    >>> MaxPool3d(2)({}, torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    axes: ClassVar[int] = 3
