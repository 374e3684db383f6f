"""Context windows: each step of a sequence together with the steps around it.

x (..., T, E).
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
    """Concatenate the features of each step with the features of ``window_size`` steps before and after it.

        y[t]  = (x[t-w], ..., x[t+w])                     x is 0 outside the sequence
        gx[t] = Σ part i of gy[t-i], i from -w to w

    A ``Linear`` or a ``Maxout`` after it is a convolution over steps.

    Args:
        window_size: Number w of steps on each side.

    Shape:
        x (..., T, E) → y (..., T, (2 w + 1) E)

    Cache:
        The shape of ``y``, and an empty tensor of its dtype.

    References:
        Collobert et al. 2011, section 3.3.1; ``thinc.expand_window``.

    >>> ExpandWindow(1)({}, torch.tensor([[1.0], [2.0]]))
    tensor([[0., 1., 2.],
            [1., 2., 0.]])
    """

    rule = "x must have the axes (..., T, E)"

    window_size: int = field(default=1, validator=whole(0))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Shaped]:
        w = self.window_size
        y = torch.cat([_shift(require_floating(self, params, x), -i) for i in range(-w, w + 1)], -1)
        return y, (tuple(y.shape), kind_of(y))

    def vjp(self, params: Params, cache: Shaped, gy: Tensor) -> tuple[Grads, Tensor]:
        w = self.window_size
        parts = torch.split(check_gy(self, gy, *cache), cache[0][-1] // (2 * w + 1), -1)
        return params, sum([_shift(part, i) for i, part in zip(range(-w, w + 1), parts, strict=True)], torch.zeros_like(parts[0]))


def _shift(x: Tensor, by: int) -> Tensor:
    """Shift the rows of x by a number of steps, to earlier ones if it is negative, and fill with zeros."""
    steps = min(abs(by), x.shape[-2])
    none = x.new_zeros(*x.shape[:-2], steps, x.shape[-1])
    if by >= 0:
        return torch.cat((none, x[..., : x.shape[-2] - steps, :]), -2)
    return torch.cat((x[..., steps:, :], none), -2)
