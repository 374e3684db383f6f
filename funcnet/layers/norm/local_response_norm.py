"""Local response normalization: divide each channel by a power of the sum of squares of its neighbouring channels.

s  = k + α Σ x² / size            over the channels from size // 2 before to (size - 1) // 2 after, zeros outside
y  = x s⁻ᵝ
gx = gy s⁻ᵝ - (2 α β / size) x Σ gy x s⁻ᵝ⁻¹      over the mirrored window: the channels whose windows contain this one
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
    """Sum each window of channels: 0.5 ms for 32×64×14×14 and 5 channels; ``avg_pool3d``, which torch uses, takes 15."""
    flat = torch.constant_pad_nd(x.flatten(2), (0, 0, before, after))
    return flat.unfold(1, before + after + 1, 1).sum(-1).reshape(x.shape)


@frozen
class _ResponseNorm(Layer):
    """Base of local response normalizations; a subclass defines which axes x has."""

    size: int = field(validator=size)
    alpha: float = field(default=1e-4, validator=number())
    beta: float = field(default=0.75, validator=number())
    k: float = field(default=1.0, validator=number())

    axes: ClassVar[str]

    @abstractmethod
    def _accepts(self, dim: int) -> bool:
        """Return whether x can have ``dim`` axes."""

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self._accepts(require_floating(self, params, x).dim()):
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
        """Return s, before the power."""
        return _windows(x * x, self.size // 2, (self.size - 1) // 2) * (self.alpha / self.size) + self.k

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Tensor]:
        x, s = cache
        g = check_gy(self, gy, x.shape, x) * s**-self.beta
        around = _windows(g * (x / s), (self.size - 1) // 2, self.size // 2)
        return params, rounded(g - x * around * (2 * self.alpha * self.beta / self.size), x)


@frozen
class LocalResponseNorm(_ResponseNorm):
    """Divide each channel of (N, channels, ...) by a power of the sum of squares of ``size`` channels around it.

        y  = x s⁻ᵝ        s = k + α Σ x² / size        over the window of channels, zeros outside
        gx = gy s⁻ᵝ - (2 α β / size) x Σ gy x s⁻ᵝ⁻¹    over the mirrored window

    The window goes from size // 2 channels before to (size - 1) // 2 after.

    Args:
        size: Number of channels in a window.
        alpha: Weight α of the squares.
        beta: Exponent β.
        k: Constant added to the weighted squares.

    Shape:
        x (N, channels, length, ...) → y of the same shape

    Cache:
        ``x``, not copied, and s; both in single precision at least.

    Raises:
        ValueError: If x has fewer than 3 axes.

    References:
        Krizhevsky, Sutskever & Hinton 2012, section 3.3; names and defaults as in ``torch.nn.LocalResponseNorm``.
    """

    axes: ClassVar[str] = "length, ..."

    def _accepts(self, dim: int) -> bool:
        return dim >= 3


@frozen
class CrossMapLRN2d(_ResponseNorm):
    """``LocalResponseNorm`` for images (N, channels, height, width) only.

        y  = x s⁻ᵝ        s = k + α Σ x² / size        over the window of channels, zeros outside
        gx = gy s⁻ᵝ - (2 α β / size) x Σ gy x s⁻ᵝ⁻¹    over the mirrored window

    With at most size // 2 channels y equals the output of ``torch.nn.CrossMapLRN2d``. With more, torch's running sums never drop
    the first channel, and its gradient fails ``gradcheck`` (torch 2.13.0).

    Args:
        size: Number of channels in a window.
        alpha: Weight α of the squares.
        beta: Exponent β.
        k: Constant added to the weighted squares.

    Shape:
        x (N, channels, height, width) → y of the same shape

    Cache:
        ``x``, not copied, and s; both in single precision at least.

    Raises:
        ValueError: If x does not have 4 axes.

    References:
        Krizhevsky, Sutskever & Hinton 2012, section 3.3; names and defaults as in ``torch.nn.CrossMapLRN2d``.
    """

    axes: ClassVar[str] = "height, width"

    def _accepts(self, dim: int) -> bool:
        return dim == 4
