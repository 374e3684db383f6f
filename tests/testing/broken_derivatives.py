"""Layers that keep every law except the eleventh: correct ones whose derivatives ``torch.func`` does not find."""

from typing import Any

import torch
from sound_layers import Affine, Rectifier
from torch import Tensor

import funcnet as fn

_aten = torch.ops.aten


@fn.frozen
class Gated(fn.Layer):
    """y = x σ(x); correct."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x * torch.sigmoid(x), x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        s = torch.sigmoid(cache)
        return params, gy * s * (1 + cache * (1 - s))


@fn.frozen
class OtherSlopeAtKink(Rectifier):
    """The forward formula has the slope ½ at 0, and ``vjp`` has 0: both are valid, but they differ."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return (x + x.abs()) / 2, x


@fn.frozen
class DetachedOutput(Gated):
    def apply(self, params: Any, x: Tensor) -> Any:
        return x * torch.sigmoid(x).detach(), x


@fn.frozen
class DetachedWeight(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"].detach()


@fn.frozen
class DetachedCache(Gated):
    def apply(self, params: Any, x: Tensor) -> Any:
        return x * torch.sigmoid(x), x.detach()


@fn.frozen
class DetachedHalf(Affine):
    """Only ``grads`` loses its dependence on gy."""

    def grads(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return {"w": gy.T @ cache, "b": gy.detach().sum(0)}


@fn.frozen
class KernelWithoutDerivative(Gated):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, _aten.silu_backward.default(gy, cache)


@fn.frozen
class WrittenInPlace(Gated):
    """The kernel of the sigmoid keeps its output, which is overwritten later."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return torch.sigmoid(x).mul_(x), x


@fn.frozen
class NoForwardMode(Affine):
    def apply(self, params: Any, x: Tensor) -> Any:
        y = x @ params["w"].T + params["b"]
        return _aten.native_dropout_backward.default(y, torch.ones_like(y, dtype=torch.bool), 1.0), x


@fn.frozen
class ConstantDerivative(Gated):
    """``vjp`` treats the derivative of the gate as a constant."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        s = torch.sigmoid(cache)
        slope = s * (1 + cache * (1 - s))
        return params, gy * (slope.detach() + 0.5 * (slope - slope.detach()))


@fn.frozen
class KernelInSingle(Gated):
    """It has a kernel without a derivative, only in float32."""

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        if gy.dtype is torch.float32:
            return params, _aten.silu_backward.default(gy, cache)
        return super().vjp(params, cache, gy)
