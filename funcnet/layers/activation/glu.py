"""Gated linear units: one half of x, gated by a function of the other half.

    y  = a ⊙ f(b)
    ga = gy ⊙ f(b)      gb = gy ⊙ a ⊙ f′(b)

x = (a b) along an axis: x (..., 2 n, ...) and y (..., n, ...). ⊙ is the elementwise product.
"""

from typing import ClassVar

import torch
from torch import Tensor

from funcnet.checks import Misfit, check_gy, require_dense_floating
from funcnet.contract import Grads, Params, Rng
from funcnet.kernels import activation as kernels
from funcnet.layers.activation.base import Activation, Along
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.activation.self_gated import GELU, SiLU
from funcnet.value import frozen


@frozen
class _Halving(Along):
    """Base of layers that treat the two halves of x along ``dim`` differently."""

    def complaint(self, x: Tensor) -> str | None:
        rule = super().complaint(x)
        return rule or (f"the axis {self.dim} of x must have an even size" if not x.dim() or x.shape[self.dim] % 2 else None)


@frozen
class GLU(_Halving):
    """Gated linear unit: the first half of x times the sigmoid of the second.

        y  = a ⊙ σ(b)                    x = (a b) along dim
        ga = gy ⊙ σ(b)
        gb = gy ⊙ a ⊙ σ(b) (1 - σ(b))

    Args:
        dim: Axis along which x is halved.

    Shape:
        x (..., 2 n, ...) → y (..., n, ...)

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x has no axis ``dim``, or if its size is odd.

    References:
        Dauphin, Fan, Auli & Grangier 2017, "Language modeling with gated convolutional networks".

    >>> GLU()({}, torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return kernels.glu(require_dense_floating(self, params, x), self.dim), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        half = cache.narrow(self.dim, 0, cache.shape[self.dim] // 2)
        return params, kernels.glu_backward(check_gy(self, gy, half.shape, half), cache, self.dim)


@frozen
class Gated(_Halving):
    """Base of layers that multiply the first half of x along ``dim`` by an activation of the second half; subclasses set it."""

    activation: ClassVar[Activation]

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        if require_dense_floating(self, params, x).shape[self.dim] % 2:
            raise Misfit  # the halves would broadcast
        a, b = x.chunk(2, self.dim)
        f, cache = self.activation.forward(b)
        return a * f, (a, f, cache)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        a, f, inner = cache
        gb = self.activation.backward(check_gy(self, gy, a.shape, a) * a, inner)
        return params, torch.cat((gy * f, gb), self.dim)


@frozen
class SwiGLU(Gated):
    """The first half of x times the SiLU of the second.

        y  = a ⊙ b σ(b)                               x = (a b) along dim
        ga = gy ⊙ b σ(b)
        gb = gy ⊙ a ⊙ σ(b) (1 + b (1 - σ(b)))

    Args:
        dim: Axis along which x is halved.

    Shape:
        x (..., 2 n, ...) → y (..., n, ...)

    Cache:
        Both halves of ``x``, not copied, and the SiLU of the second.

    Raises:
        ValueError: If x has no axis ``dim``, or if its size is odd.

    References:
        Shazeer 2020, "GLU variants improve transformer", section 2.

    >>> SwiGLU()({}, torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    activation = SiLU()


@frozen
class GEGLU(Gated):
    """The first half of x times the GELU of the second.

        y  = a ⊙ b Φ(b)                        x = (a b) along dim
        ga = gy ⊙ b Φ(b)
        gb = gy ⊙ a ⊙ (Φ(b) + b φ(b))          Φ, φ: distribution function and density of N(0, 1)

    Args:
        dim: Axis along which x is halved.

    Shape:
        x (..., 2 n, ...) → y (..., n, ...)

    Cache:
        Both halves of ``x``, not copied, and the GELU of the second.

    Raises:
        ValueError: If x has no axis ``dim``, or if its size is odd.

    References:
        Shazeer 2020, "GLU variants improve transformer", section 2.

    >>> GEGLU()({}, torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    activation = GELU()


@frozen
class ReGLU(Gated):
    """The first half of x times the ReLU of the second.

        y  = a ⊙ max(0, b)                  x = (a b) along dim
        ga = gy ⊙ max(0, b)
        gb = gy ⊙ a where b > 0, else 0

    Args:
        dim: Axis along which x is halved.

    Shape:
        x (..., 2 n, ...) → y (..., n, ...)

    Cache:
        The first half of ``x``, not copied, and the ReLU of the second.

    Raises:
        ValueError: If x has no axis ``dim``, or if its size is odd.

    References:
        Shazeer 2020, "GLU variants improve transformer", section 2.

    >>> ReGLU()({}, torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    activation = ReLU()
