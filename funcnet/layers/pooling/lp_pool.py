"""Power-average pooling: a window slides along x, and each output is the p-norm of what it covers.

    LPPool    y[t] = (Σ_k x[s t + k]ᵖ)^(1/p)      gx[i] = x[i]ᵖ⁻¹ Σ_{k, t: s t + k = i} gy[t] y[t]¹⁻ᵖ

for each row and channel; t, k, i are one number per axis (one to three), s is the stride, p the exponent ``norm_type``. With
``ceil_mode`` the last window may reach beyond the end.
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
from funcnet.kernels.extremes import are_powers_kept, for_squares
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
        if can_look_at(y) and y.numel() and not are_powers_kept(y, x, self.norm_type):
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
        # at 0 the power of a p below 1 is infinite
        return params, rounded(back * power if p >= 1 else torch.where(back == 0, 0.0, back * power), x)

    def _norm(self, x: Tensor) -> Tensor:
        mean = kernels.avg_pool(x**self.norm_type, *self._options)
        return root(mean * math.prod(self._options[0]), self.norm_type)

    def _largest(self, x: Tensor) -> Tensor:
        """Return the largest magnitude of each channel in float64, to scale powers by; 1 where there is none."""
        most = x.detach().double().abs().amax([*range(-self.axes, 0)], keepdim=True)
        return torch.where((most > 0) & (most < math.inf), most, 1.0)


@frozen
class LPPool1d(_LPPool):
    """p-norm, p = ``norm_type``, of each window of (N, channels, length), or (channels, length); as ``torch.nn.LPPool1d``.

    As in torch.nn, no absolute value is taken. With negative elements an odd p may give a negative sum, whose root is NaN, and a
    p that is not an integer gives NaN for each of them. A window whose sum is 0 has gradient 0, unless p is 1. With
    ``ceil_mode``, each element of a last window beyond the end counts as the mean of xᵖ over the elements within.

    Params   none.
    Cache    ``x``, and ``y`` in at least single precision.
    Raises   ``ValueError`` for sizes below 1, a p that is not above 0, and an ``x`` that is not floating, or has other axes, or
             is shorter than the window.
    Source   ``torch.nn.LPPool1d``'s formula.
    """

    axes: ClassVar[int] = 1


@frozen
class LPPool2d(_LPPool):
    """p-norm of each window of (N, channels, height, width), or without N; as ``torch.nn.LPPool2d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x``, and ``y`` in at least single precision.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    Source   ``torch.nn.LPPool2d``'s formula.
    """

    axes: ClassVar[int] = 2


@frozen
class LPPool3d(_LPPool):
    """p-norm of each window of (N, channels, depth, height, width), or without N; as ``torch.nn.LPPool3d``; see ``LPPool1d``.

    Params   none.
    Cache    ``x``, and ``y`` in at least single precision.
    Raises   ``ValueError`` as ``LPPool1d`` does.
    Source   ``torch.nn.LPPool3d``'s formula.
    """

    axes: ClassVar[int] = 3
