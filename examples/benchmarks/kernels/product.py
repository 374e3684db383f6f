"""Linear maps of the big net, the GPT and the small nets, in float32 and in bfloat16, with each library."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd

LIBRARIES = ("mkl", "onednn")


def _operands(rows: int, inside: int, outside: int, dtype: torch.dtype) -> tuple[fn.Layer, Any, Tensor, Tensor]:
    layer = fn.Linear(inside, outside)
    params = fn.tree.cast(layer.init(0), dtype)
    return layer, params, noise(rows, inside).to(dtype), noise(rows, outside, seed=1).to(dtype)


def _by(library: str, layer: fn.Layer, method: str, *arguments: object) -> object:
    with fn.kernels.matmul_library(library):
        return getattr(layer, method)(*arguments)


def forward(rows: int, inside: int, outside: int, dtype: torch.dtype) -> Ways:
    """Return the contenders for x wᵀ + b."""
    layer, params, x, _ = _operands(rows, inside, outside, dtype)
    theirs, _ = through_autograd(functional.linear, x, leaf(params["weight"]), leaf(params["bias"]))
    ways: Ways = {"funcnet": lambda: layer.apply(params, x), "torch.nn": theirs}
    return ways | {name: partial(_by, name, layer, "apply", params, x) for name in LIBRARIES}


def backward(rows: int, inside: int, outside: int, dtype: torch.dtype) -> Ways:
    """Return the contenders for all three gradients, and for some of them."""
    layer, params, x, gy = _operands(rows, inside, outside, dtype)
    leaves = leaf(x), leaf(params["weight"]), leaf(params["bias"])
    _, theirs = through_autograd(functional.linear, *leaves, gy=gy)
    ways: Ways = {"funcnet": lambda: layer.vjp(params, x, gy), "torch.nn": theirs}
    ways |= {name: partial(_by, name, layer, "vjp", params, x, gy) for name in LIBRARIES}
    return ways | {"params only": lambda: layer.grads(params, x, gy), "input only": lambda: layer.input_grad(params, x, gy)}


SIZES = [(100, 25, 25), (256, 784, 1024), (256, 1024, 1024), (1024, 256, 768), (1024, 256, 1024), (1024, 1024, 256)]

ROWS = [
    Row(f"{rows}×{inside} to {outside}, {way.__name__}, {str(dtype)[6:]}", partial(way, rows, inside, outside, dtype))
    for dtype in (torch.float32, torch.bfloat16)
    for way in (forward, backward)
    for rows, inside, outside in SIZES
]
