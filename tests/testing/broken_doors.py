"""Layers with one fault each in handling wrong arguments, in the order of the results of a trial."""

import os
from typing import Any

import torch

import funcnet as fn
from funcnet.checks import check_gy, require_dense_floating


@fn.frozen
class Doubled(fn.Layer):
    """y = 2 x; correct. Each of the layers below changes one thing."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> tuple[Any, Any]:
        return 2 * require_dense_floating(self, params, x), x

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        return params, 2 * check_gy(self, gy, cache.shape, cache)


@fn.frozen
class Broadcasting(Doubled):
    """Broadcasts gy: one row of it gives gradients of the right shape."""

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        return params, 2 * gy.expand(cache.shape)


@fn.frozen
class Unchecked(Doubled):
    """Accepts a gy of any shape."""

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        return params, 2 * gy


@fn.frozen
class Promoting(Doubled):
    """Checks the shape of gy, but not its dtype."""

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        return params, 2 * check_gy(self, gy, cache.shape)


@fn.frozen
class Bare(Doubled):
    """Raises the bare error of a kernel."""

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        return params, 2 * torch.addmm(gy, cache, cache.mT @ cache, alpha=0)


@fn.frozen
class Changing(Doubled):
    """Returns other numbers each time for one row."""

    def apply(self, params: Any, x: Any, rng: Any = None) -> tuple[Any, Any]:
        y, cache = super().apply(params, x)
        return y + torch.rand(()) if len(x) == 1 else y, cache


@fn.frozen
class Dying(Doubled):
    """Ends the process for a gy of one row."""

    def vjp(self, params: Any, cache: Any, gy: Any) -> tuple[Any, Any]:
        if len(gy) == 1:
            os.abort()
        return super().vjp(params, cache, gy)


BROKEN = {
    "wrong value": Broadcasting(),
    "wrong shape": Unchecked(),
    "wrong dtype": Promoting(),
    "RuntimeError": Bare(),
    "other numbers each time": Changing(),
}
