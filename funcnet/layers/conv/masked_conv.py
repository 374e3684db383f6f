"""Masked convolution: a convolution in which part of the kernel is always 0.

x (N, in, *lengths), w and the mask m (out, in / groups, *kernel). ⊙ is the elementwise product.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import params_error
from funcnet.combinator import errors_at
from funcnet.contract import Grads, Params, Rng
from funcnet.errors import instances, one_of
from funcnet.layers.conv.conv import Conv1d, Conv2d, Conv3d
from funcnet.layers.conv.window import each
from funcnet.random.keys import Key
from funcnet.value import frozen
from funcnet.wrapper import Wrapper, infer_unchanged


@frozen
class MaskedConv(Wrapper):
    """A causal convolution of images: it sees the rows above, and in the current row only the pixels to the left.

        y  = conv(x) with the weight w ⊙ m
        gx = conv's gx for the weight w ⊙ m
        gw = m ⊙ (conv's gw for the weight w ⊙ m)

    m is 0 at every later position of the kernel, in reading order. With an odd kernel and ``padding="same"``, y at a pixel does
    not depend on later pixels.

    Args:
        layer: A ``Conv1d``, ``Conv2d`` or ``Conv3d``.
        mask: ``"A"`` also masks the middle of the kernel, for a first layer on the pixels that the net predicts; ``"B"`` keeps
            it.

    Shape:
        x (N, in_channels, ...) → y (N, out_channels, ...), as for the convolution.

    Params:
        weight: As in the convolution; masked weights are initialized to 0, and stay 0 because their gradient is 0.
        bias: As in the convolution.

    Cache:
        The cache of the convolution.

    Raises:
        ValueError: If ``layer`` is not a convolution. Other errors are those of the convolution.

    References:
        van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks", section 3.4.

    >>> net = MaskedConv(Conv2d(1, 8, 3, padding="same"), "A")
    >>> net.init(0)["weight"][0, 0, 1:].count_nonzero()
    tensor(1)
    """

    layer: Conv1d | Conv2d | Conv3d = field(validator=instances((Conv1d, Conv2d, Conv3d), "a Conv1d, Conv2d or Conv3d"))
    mask: str = field(validator=one_of("A", "B"))

    def init(self, rng: Key | int) -> Params:
        return self._masked(super().init(rng))

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Any]:
        with errors_at(self, ""):
            return self.layer.apply(self._masked(params), x, rng)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Tensor]:
        with errors_at(self, ""):
            gparams, gx = self.layer.vjp(self._masked(params), cache, gy)
        return self._masked(gparams), gx

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Grads:
        with errors_at(self, ""):
            return self._masked(self.layer.grads(self._masked(params), cache, gy))

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Tensor:
        with errors_at(self, ""):
            return self.layer.input_grad(self._masked(params), cache, gy)

    infer = infer_unchanged

    def _masked(self, params: Grads) -> Params:
        """Return params, or their gradients, with masked weights set to 0; the layer itself rejects an invalid weight."""
        if not isinstance(params, dict) or "weight" not in params:
            raise params_error(self.layer, params)
        w = params["weight"]
        kernel = each(self.layer.kernel_size, self.layer.axes)
        if not isinstance(w, Tensor) or w.is_nested or w.layout is not torch.strided or w.shape[2:] != kernel:
            return params
        middle = sum(k // 2 * math.prod(kernel[i + 1 :]) for i, k in enumerate(kernel)) + (self.mask == "B")
        seen = (torch.arange(math.prod(kernel), device=w.device) < middle).reshape(kernel)
        return {**params, "weight": torch.where(seen, w, 0)}
