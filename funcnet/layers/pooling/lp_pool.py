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
from funcnet.contract import Params, Rng
from funcnet.errors import flag, number, whole_numbers
from funcnet.kernels import pooling as kernels
from funcnet.kernels.operands import divisor, root
from funcnet.layers.conv.window import Sizes, hashable, require_axes
from funcnet.layers.pooling.sliding import SlidingPool
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
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # powers overflow float16 where their root does not
        mean = kernels.avg_pool(wide**self.norm_type, *self._options)
        y = root(mean * math.prod(self._options[0]), self.norm_type)
        return y.to(x.dtype), (x, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        x, y = cache
        of, p = kernels.origin(x, self.axes), self.norm_type
        g = check_gy(self, gy, y.shape, x)
        g = (g if p == 1 else torch.where(y == 0, 0, g * divisor(y, g) ** (1 - p))) * math.prod(self._options[0])
        return params, (kernels.avg_pool_backward(g, of, *self._options) * x.to(y.dtype) ** (p - 1)).to(x.dtype)


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
