"""Context: each step of a sequence beside the steps around it.

y[t] = (x[t-w], ..., x[t+w])      gx[t] = Σ gy[t-i], part i of it, over i from -w to w      x is 0 outside
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_floating
from funcnet.contract import Grads, Params, Rng
from funcnet.errors import whole
from funcnet.layers.shape.reshaping import Shaped, SingleRule
from funcnet.value import frozen


@frozen
class ExpandWindow(SingleRule):
    """The features of ``window_size`` steps before and after beside a step's own: (..., T, E) gives (..., T, (2 w + 1) E).

    Beyond the ends they are 0. A ``Linear`` after it, or a ``Maxout``, is a convolution over steps.

    Params   none.
    Cache    the shape of ``y``, and an empty tensor of its kind.
    Raises   ``ValueError`` for a window below 0, and when ``x`` is not a floating tensor with the axes (..., T, E).
    Source   ``thinc.expand_window``; Collobert et al. 2011, section 3.3.1.
    """

    rule = "x must have the axes (..., T, E)"

    window_size: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        w = self.window_size
        y = torch.cat([_shifted(require_floating(self, params, x), -i) for i in range(-w, w + 1)], -1)
        return y, (tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        w = self.window_size
        parts = torch.split(check_gy(self, gy, *cache), cache[0][-1] // (2 * w + 1), -1)
        return params, sum(
            [_shifted(part, i) for i, part in zip(range(-w, w + 1), parts, strict=True)], torch.zeros_like(parts[0])
        )


def _shifted(x: Tensor, by: int) -> Tensor:
    """Move steps to later ones, or for a negative number to earlier ones, with zeros coming in."""
    steps = min(abs(by), x.shape[-2])
    none = x.new_zeros(*x.shape[:-2], steps, x.shape[-1])
    if by >= 0:
        return torch.cat((none, x[..., : x.shape[-2] - steps, :]), -2)
    return torch.cat((x[..., steps:, :], none), -2)
