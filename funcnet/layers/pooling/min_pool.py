"""Min pooling: a window slides along x, and each output is the smallest element of the window.

x (N, channels, ...) or (channels, ...). It is max pooling of -x, with the same kernels: y = -MaxPool(-x). The padding is ∞.
"""

from typing import Any, ClassVar

from torch import Tensor

from funcnet.contract import Params, Rng
from funcnet.kernels.windows import Origin
from funcnet.layers.conv.window import require_axes
from funcnet.layers.pooling.max_pool import _MaxPool
from funcnet.value import frozen


@frozen
class _MinPool(_MaxPool):
    """Smallest element of each window; the two changes of sign cancel in the gradient."""

    def __call__(self, params: Params, x: Tensor, rng: Rng = None) -> Any:
        if self.return_indices:
            return self.apply(params, x)[0]
        return -super().__call__(params, -require_axes(self, params, x))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Any, tuple[Tensor, Origin, Tensor]]:
        y, cache = super().apply(params, -require_axes(self, params, x))
        return self._negated(y), cache

    def _negated(self, y: Any) -> Any:
        return (-y[0], y[1]) if self.return_indices else -y


@frozen
class MinPool1d(_MinPool):
    """Smallest element of each window that slides along one axis.

        y[t]  = min_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose minimum is at i

    Rows and channels are pooled separately. L_out = ⌊(L + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1;
    ``ceil_mode`` rounds up instead, but no window begins in the padding at the end. Ties go to the first element; among several
    NaNs, the last one counts.

    Args:
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        padding: Number of elements of ∞ before and after x, at most half of ``kernel_size``.
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
        ``MaxPool1d``: y = -MaxPool1d(-x).

    >>> import torch
    >>> MinPool1d(2)({}, torch.ones(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    axes: ClassVar[int] = 1


@frozen
class MinPool2d(_MinPool):
    """Smallest element of each window that slides over two axes.

        y[t]  = min_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose minimum is at i

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis, the length of y
    is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window begins
    in the padding at the end. Ties go to the first element; among several NaNs, the last one counts.

    Args:
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        padding: Number of elements of ∞ before and after x, at most half of ``kernel_size``; one number for both axes, or a tuple
            of two.
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
        ``MaxPool2d``: y = -MaxPool2d(-x).

    >>> import torch
    >>> MinPool2d(2)({}, torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3, 4, 4])
    """

    axes: ClassVar[int] = 2


@frozen
class MinPool3d(_MinPool):
    """Smallest element of each window that slides over three axes.

        y[t]  = min_k x[s t + d k - p]                        s = stride, d = dilation, p = padding before x
        gx[i] = Σ gy[t] over the t whose minimum is at i

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis, the length of
    y is ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1; ``ceil_mode`` rounds up instead, but no window
    begins in the padding at the end. Ties go to the first element; among several NaNs, the last one counts.

    Args:
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        padding: Number of elements of ∞ before and after x, at most half of ``kernel_size``; one number for all axes, or a tuple
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
        ``MaxPool3d``: y = -MaxPool3d(-x).

    >>> import torch
    >>> MinPool3d(2)({}, torch.ones(2, 3, 4, 8, 8)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    axes: ClassVar[int] = 3
