"""Power-average pooling: a window slides along x, and each output is the p-norm of the window.

x (N, channels, ...) or (channels, ...). The indices t, k and i have one number for each axis (one to three).
"""

import math
from typing import ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy
from funcnet.contract import Grads, Params, Rng
from funcnet.errors import flag, number, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.extremes import are_powers_in_range, for_squares
from funcnet.kernels.operands import divisor, root
from funcnet.kernels.tracing import can_look_at
from funcnet.kernels.windows import origin
from funcnet.layers.conv.window import Sizes, hashable, require_axes
from funcnet.layers.pooling.sliding import SlidingPool
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class _LPPool(SlidingPool):
    """Norm of each window."""

    norm_type: float = field(validator=number(above=0.0))
    kernel_size: Sizes = field(converter=hashable, validator=whole_numbers(1))
    stride: Sizes | None = field(default=None, converter=hashable, validator=whole_numbers(1, optional=True))
    ceil_mode: bool = field(default=False, validator=flag)

    def __attrs_post_init__(self) -> None:
        self._set_options(self.kernel_size, self.stride, 0, self.ceil_mode, True, None)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        require_axes(self, params, x)
        y = self._norm(for_squares(x))
        if can_look_at(y) and y.numel() and not are_powers_in_range(y, x, self.norm_type):
            m = self._largest(x)
            y = self._norm(x / m) * m
        return rounded(y, x), (x, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        x, y = cache
        of, p, gy = origin(x, self.axes), self.norm_type, check_gy(self, gy, y.shape, x)
        m = self._largest(x) if y.dtype is torch.float64 else None
        z, y = (in_single(x), y) if m is None else (x / m, y / m)
        g = gy if p == 1 else torch.where(y == 0, 0, gy * divisor(y, gy) ** (1 - p))
        g = g * math.prod(self._options[0])
        back, power = kernels.avg_pool_backward(g, of, *self._options), z ** (p - 1)
        # for p below 1 the power is infinite at 0
        return params, rounded(back * power if p >= 1 else torch.where(back == 0, 0.0, back * power), x)

    def _norm(self, x: Tensor) -> Tensor:
        mean = kernels.avg_pool(x**self.norm_type, *self._options)
        return root(mean * math.prod(self._options[0]), self.norm_type)

    def _largest(self, x: Tensor) -> Tensor:
        """Return the largest magnitude of each channel in float64, to scale powers; 1 if it is 0 or infinite."""
        most = x.detach().double().abs().amax([*range(-self.axes, 0)], keepdim=True)
        return torch.where((most > 0) & (most < math.inf), most, 1.0)


@frozen
class LPPool1d(_LPPool):
    """p-norm of each window that slides along one axis, without absolute values.

        y[t]  = (Σ_k x[s t + k]ᵖ)^(1/p)                            s = stride, p = norm_type
        gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

    Rows and channels are pooled separately. L_out = ⌊(L - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, and each
    element of the last window beyond the end counts as the mean of xᵖ over the elements inside.

    As in torch.nn, no absolute value is taken. With negative elements, an odd p can give a negative sum, whose root is NaN, and a
    fractional p gives NaN in every window that contains one. A window whose sum is 0 has gradient 0, unless p is 1.

    Args:
        norm_type: The exponent p, above 0.
        kernel_size: Size of the window.
        stride: Step from one window to the next; ``None`` for ``kernel_size``.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, L) → y (N, channels, L_out), or both without N.

    Cache:
        ``x``, not copied, and ``y`` in float32 at least.

    Raises:
        ValueError: If x is shorter than the window.

    References:
        ``torch.nn.LPPool1d``.
    """

    axes: ClassVar[int] = 1


@frozen
class LPPool2d(_LPPool):
    """p-norm of each window that slides over two axes, without absolute values.

        y[t]  = (Σ_k x[s t + k]ᵖ)^(1/p)                            s = stride, p = norm_type
        gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

    Rows and channels are pooled separately. t, k and i are pairs of indices, one for each axis. Along each axis, the length of y
    is ⌊(length - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, and each element of the last window beyond the end
    counts as the mean of xᵖ over the elements inside.

    As in torch.nn, no absolute value is taken. With negative elements, an odd p can give a negative sum, whose root is NaN, and a
    fractional p gives NaN in every window that contains one. A window whose sum is 0 has gradient 0, unless p is 1.

    Args:
        norm_type: The exponent p, above 0.
        kernel_size: Size of the window; one number for both axes, or a tuple of two.
        stride: Step from one window to the next; one number for both axes, or a tuple of two; ``None`` for ``kernel_size``.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, H, W) → y (N, channels, H_out, W_out), or both without N.

    Cache:
        ``x``, not copied, and ``y`` in float32 at least.

    Raises:
        ValueError: If x is shorter than the window.

    References:
        ``torch.nn.LPPool2d``.
    """

    axes: ClassVar[int] = 2


@frozen
class LPPool3d(_LPPool):
    """p-norm of each window that slides over three axes, without absolute values.

        y[t]  = (Σ_k x[s t + k]ᵖ)^(1/p)                            s = stride, p = norm_type
        gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

    Rows and channels are pooled separately. t, k and i are triples of indices, one for each axis. Along each axis, the length of
    y is ⌊(length - kernel_size) / stride⌋ + 1; ``ceil_mode`` rounds up instead, and each element of the last window beyond the
    end counts as the mean of xᵖ over the elements inside.

    As in torch.nn, no absolute value is taken. With negative elements, an odd p can give a negative sum, whose root is NaN, and a
    fractional p gives NaN in every window that contains one. A window whose sum is 0 has gradient 0, unless p is 1.

    Args:
        norm_type: The exponent p, above 0.
        kernel_size: Size of the window; one number for all axes, or a tuple of three.
        stride: Step from one window to the next; one number for all axes, or a tuple of three; ``None`` for ``kernel_size``.
        ceil_mode: Whether the last window can reach beyond the end of x.

    Shape:
        x (N, channels, D, H, W) → y (N, channels, D_out, H_out, W_out), or both without N.

    Cache:
        ``x``, not copied, and ``y`` in float32 at least.

    Raises:
        ValueError: If x is shorter than the window.

    References:
        ``torch.nn.LPPool3d``.
    """

    axes: ClassVar[int] = 3
