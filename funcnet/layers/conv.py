"""Convolution (cross-correlation, as everywhere in the field): a window slides along x, and each output is a weighted sum of it.

    y[n, o, t]  = b[o] + Σ_{c, k} w[o, c, k] x[n, c, s t + d k - p]        s = stride, d = dilation, p = padding
    gw[o, c, k] = Σ_{n, t} gy[n, o, t] x[n, c, s t + d k - p]
    gb[o]       = Σ_{n, t} gy[n, o, t]
    gx[n, c, i] = Σ_{o, k, t: s t + d k - p = i} gy[n, o, t] w[o, c, k]

with x zero outside its range; with groups, c runs over the channels of o's group.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.errors import flag, is_whole, size, wrong
from funcnet.initializers import Initializer
from funcnet.kernels import conv as kernels
from funcnet.layer import Layer, Params, explained, frozen, wrong_params
from funcnet.random import Key


def _padding(layer: Any, attribute: Any, got: Any) -> None:
    if got not in ("same", "valid") and not (is_whole(got) and got >= 0):
        raise wrong("Conv1d", 'padding must be a whole number of at least 0, "same" or "valid"', repr(got))


@frozen
class Conv1d(Layer):
    """Convolution over (N, channels, length), or (channels, length) without a batch; arguments as in ``torch.nn.Conv1d``.

    The output has length ⌊(length + 2 padding - dilation (kernel_size - 1) - 1) / stride⌋ + 1. ``padding="same"`` keeps the
    length, for stride 1; where the padding is odd the end gets the one more. ``padding="valid"`` is 0.

    Params   ``weight`` (out, in / groups, kernel), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros,
             absent with ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.Conv1d`` draws them.
    Cache    ``x`` itself, with its padding where ``"same"`` is uneven.
    Raises   ``ValueError`` for sizes below 1, channels that ``groups`` does not divide, ``"same"`` with a stride, params that are
             not this layer's, and an ``x`` with other channels, axes or dtype, or shorter than the kernel.
    """

    in_channels: int = field(validator=size)
    out_channels: int = field(validator=size)
    kernel_size: int = field(validator=size)
    stride: int = field(default=1, validator=size)
    padding: int | str = field(default=0, validator=_padding)
    dilation: int = field(default=1, validator=size)
    groups: int = field(default=1, validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            got = f"groups={self.groups}, in_channels={self.in_channels}, out_channels={self.out_channels}"
            raise wrong("Conv1d", "groups must divide in_channels and out_channels", got)
        if self.padding == "same" and self.stride != 1:
            raise wrong("Conv1d", 'padding="same" must have stride 1', f"stride={self.stride}")

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(rng, self._shapes(), self.initializer)

    def apply(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        try:
            w, b = params["weight"], params["bias"] if self.bias else None
            if w.shape != self._shapes()["weight"] or len(params) != 1 + self.bias or x.dim() not in (2, 3):
                raise wrong_params(self, params)
            _, high = self._pads()
            x = torch.constant_pad_nd(x, (0, high - self._pad())) if high > self._pad() else x
            return torch.conv1d(x, w, b, self.stride, self._pad(), self.dilation, self.groups), x
        except Exception as error:
            raise explained(self, params, x, error) from None

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        gx, gparams = self._backward(params, cache, gy, needs_x=True, needs_params=True)
        return gparams, self._cut(gx)

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Params:
        return self._backward(params, cache, gy, needs_x=False, needs_params=True)[1]

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        return self._cut(self._backward(params, cache, gy, needs_x=True, needs_params=False)[0])

    def _backward(self, params: Params, x: Tensor, gy: Tensor, *, needs_x: bool, needs_params: bool) -> tuple[Tensor, Params]:
        options = ([self.stride], [self._pad()], [self.dilation], False, [0], self.groups)
        mask = [needs_x, needs_params, needs_params and self.bias]
        batch = x.dim() == 3
        x, gy = (x, gy) if batch else (x.unsqueeze(0), gy.unsqueeze(0))
        gx, gw, gb = kernels.convolution_backward(gy, x, params["weight"], [self.out_channels], *options, mask)
        return gx if batch or not needs_x else gx.squeeze(0), {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def _pads(self) -> tuple[int, int]:
        """Return how many zeros stand before and after x."""
        if self.padding == "same":
            total = self.dilation * (self.kernel_size - 1)
            return total // 2, total - total // 2
        pad = 0 if isinstance(self.padding, str) else self.padding
        return pad, pad

    def _pad(self) -> int:
        return self._pads()[0]

    def _cut(self, gx: Tensor) -> Tensor:
        """Take off the gradient of the one zero by which uneven "same" padding lengthens x."""
        low, high = self._pads()
        return gx[..., : gx.shape[-1] - 1] if high > low else gx

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        weight = (self.out_channels, self.in_channels // self.groups, self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def _fault(self, x: Tensor) -> str | None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return "x must be a floating tensor"
        if x.dim() not in (2, 3):
            return "x must have the axes (N, channels, length) or (channels, length)"
        if x.shape[-2] != self.in_channels:
            return f"the last axis but one of x must be in_channels={self.in_channels}"
        reach = self.dilation * (self.kernel_size - 1) + 1
        if x.shape[-1] + sum(self._pads()) < reach:
            return f"x with its padding must be as long as the kernel's reach, {reach}"
        return None
