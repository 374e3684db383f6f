"""Masked convolution: a convolution in which part of the kernel is held at 0.

    MaskedConv   y = conv(w ⊙ m, x)      gw = m ⊙ (conv's gw for w ⊙ m)      gx = conv's gx for w ⊙ m

x (N, in, *lengths), w and m (out, in / groups, *kernel).
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Layer, Params, Shape, frozen, params_error
from funcnet.errors import instances, one_of
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.window import each
from funcnet.random import Key


@frozen
class MaskedConv(Layer):
    """A convolution that sees what comes before: the rows above, and of its own row what is to the left.

    ``mask`` is ``"A"``, without the middle of the kernel, for a first layer on what is to be predicted, or ``"B"``, with it. So
    with an odd kernel and ``padding="same"`` y at a pixel depends on none behind it in reading order.

    >>> net = MaskedConv(Conv2d(1, 8, 7, padding="same"), "A")

    Params   those of ``conv``, where the weights that are masked begin as 0, stay so, and have gradient 0.
    Cache    as of ``conv``.
    Raises   ``ValueError`` for a ``conv`` that is no convolution, another mask, and as ``conv`` does.
    Source   van den Oord, Kalchbrenner & Kavukcuoglu 2016, section 3.4.
    """

    conv: Conv1d | Conv2d | Conv3d = field(validator=instances((Conv1d, Conv2d, Conv3d), "a Conv1d, Conv2d or Conv3d"))
    mask: str = field(validator=one_of("A", "B"))

    def init(self, rng: Key | int) -> Params:
        return self._masked(self.conv.init(rng))

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        return self.conv.apply(self._masked(params), x)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Params, Tensor]:
        gparams, gx = self.conv.vjp(self._masked(params), cache, gy)
        return self._masked(gparams), gx

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Params:
        return self._masked(self.conv.grads(params, cache, gy))

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Tensor:
        return self.conv.input_grad(self._masked(params), cache, gy)

    def infer(self, x: Any) -> tuple[Layer, Any]:
        conv, y = self.conv.infer(x)
        return self.replace(conv=conv), y

    def _masked(self, params: Params) -> Params:
        """Return params, or their gradients, with 0 for what is masked."""
        if not isinstance(params, dict) or "weight" not in params:
            raise params_error(self, params)
        w = params["weight"]
        kernel = each(self.conv.kernel_size, self.conv.axes)
        middle = sum(k // 2 * math.prod(kernel[i + 1 :]) for i, k in enumerate(kernel)) + (self.mask == "B")
        seen = (torch.arange(math.prod(kernel), device=w.device) < middle).reshape(kernel)
        return {**params, "weight": torch.where(seen, w, 0)}

    def param_shapes(self) -> dict[str, Shape]:
        return self.conv.param_shapes()
