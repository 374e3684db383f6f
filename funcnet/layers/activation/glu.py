"""Gated linear units: one half of x, gated by a function of the other half.

    GLU                    y = a ⊙ f(b)        ga = gy ⊙ f(b),  gb = gy ⊙ a f′(b)    f = σ
    SwiGLU, GEGLU, ReGLU   the same, with f = SiLU, GELU, ReLU

x = (a b) along an axis: x (..., 2 n, ...) and y (..., n, ...). ⊙ is the elementwise product.
"""

from typing import ClassVar

import torch
from torch import Tensor

from funcnet.checks import check_gy, require_axis, require_floating
from funcnet.contract import Params, Rng
from funcnet.errors import value_error
from funcnet.kernels import activation as kernels
from funcnet.layers.activation.base import Activation, Along
from funcnet.layers.activation.rectifiers import ReLU
from funcnet.layers.activation.self_gated import GELU, SiLU
from funcnet.value import frozen


def _even(layer: Along, x: Tensor) -> Tensor:
    """Return x as it is; it must have two halves along the layer's axis."""
    if not x.dim() or x.shape[require_axis(layer, x, layer.dim)] % 2:
        raise value_error(layer, f"the axis {layer.dim} of x must have an even size", f"x of shape {tuple(x.shape)}")
    return x


@frozen
class GLU(Along):
    """Gated linear unit: the first half of x along ``dim`` times the sigmoid of the second.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor with an axis ``dim`` of an even size.
    Source   Dauphin, Fan, Auli & Grangier 2017.
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        return kernels.glu(_even(self, require_floating(self, params, x)), self.dim), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        half = cache.narrow(self.dim, 0, cache.shape[self.dim] // 2)
        return params, kernels.glu_backward(check_gy(self, gy, half.shape), cache, self.dim)


@frozen
class Gated(Along):
    """The first half of x along ``dim`` times an activation of the second: the subclasses say which."""

    activation: ClassVar[Activation]

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        a, b = _even(self, require_floating(self, params, x)).chunk(2, self.dim)
        f, kept = self.activation.forward(b)
        return a * f, (a, f, kept)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        a, f, kept = cache
        gb = self.activation.backward(check_gy(self, gy, a.shape) * a, kept)
        return params, torch.cat((gy * f, gb), self.dim)


@frozen
class SwiGLU(Gated):
    """The first half of x along ``dim`` times the SiLU of the second.

    Params   none.
    Cache    both halves of ``x``, and the SiLU of the second.
    Raises   ``ValueError`` when ``x`` is not a floating tensor with an axis ``dim`` of an even size.
    Source   Shazeer 2020.
    """

    activation = SiLU()


@frozen
class GEGLU(Gated):
    """The first half of x along ``dim`` times the GELU of the second.

    Params   none.
    Cache    both halves of ``x``, and the GELU of the second.
    Raises   ``ValueError`` when ``x`` is not a floating tensor with an axis ``dim`` of an even size.
    Source   Shazeer 2020.
    """

    activation = GELU()


@frozen
class ReGLU(Gated):
    """The first half of x along ``dim`` times the ReLU of the second.

    Params   none.
    Cache    the first half of ``x``, and the ReLU of the second.
    Raises   ``ValueError`` when ``x`` is not a floating tensor with an axis ``dim`` of an even size.
    Source   Shazeer 2020.
    """

    activation = ReLU()
