"""Batch norm, and the operations after it in the residual net: ReLU, and the sum of two branches."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd


def _ordered(x: Tensor, order: str) -> Tensor:
    return x.contiguous(memory_format=getattr(torch, order))


def batch_norm(shape: tuple[int, ...], order: str) -> Ways:
    """Return the contenders for forward and backward pass, with updated running statistics."""
    x, layer = _ordered(noise(*shape), order), fn.BatchNorm2d(shape[1])
    params, gy = layer.init(0), _ordered(noise(*shape, seed=1), order)
    mean, variance = params["running_mean"].clone(), params["running_var"].clone()
    w, b = leaf(params["weight"]), leaf(params["bias"])
    f = lambda x, w, b: functional.batch_norm(x, mean, variance, w, b, training=True)
    forward, backward = through_autograd(f, leaf(x), w, b, gy=gy)

    def ours() -> None:
        _, cache = layer.apply(params, x)
        layer.update_stats(params, cache)
        layer.vjp(params, cache, gy)

    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward())}


def relu(shape: tuple[int, ...]) -> Ways:
    """Return the contenders for forward and backward pass of ReLU."""
    x, layer, gy = noise(*shape), fn.ReLU(), noise(*shape, seed=1)
    forward, backward = through_autograd(functional.relu, leaf(x), gy=gy)
    ours = lambda: layer.vjp({}, layer.apply({}, x)[1], gy)
    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward())}


SIZES = {"32×32×32×32": (32, 32, 32, 32), "32×64×16×16": (32, 64, 16, 16), "32×128×8×8": (32, 128, 8, 8)}

ROWS = [
    *[
        Row(f"batch norm, {name}, {order}", partial(batch_norm, shape, order))
        for name, shape in SIZES.items()
        for order in ("contiguous_format", "channels_last")
    ],
    *[Row(f"ReLU, {name}", partial(relu, shape)) for name, shape in {**SIZES, "64×16×28×28": (64, 16, 28, 28)}.items()],
]
