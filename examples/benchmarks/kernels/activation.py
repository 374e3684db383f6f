"""Activations, layer norm and softmax, forward and backward, in float32 and in bfloat16."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd

PAIRS: dict[str, tuple[fn.Layer, Callable[[Tensor], Tensor]]] = {
    "ReLU": (fn.ReLU(), functional.relu),
    "GELU": (fn.GELU(), functional.gelu),
    "SiLU": (fn.SiLU(), functional.silu),
    "Tanh": (fn.Tanh(), torch.tanh),
    "Softmax": (fn.Softmax(-1), partial(functional.softmax, dim=-1)),
}

SHAPES = [(100, 25), (1024, 256), (1024, 1024)]


def elementwise(name: str, shape: tuple[int, int], dtype: torch.dtype) -> Ways:
    """Return the contenders for a layer without params."""
    (layer, f), x, gy = PAIRS[name], noise(*shape).to(dtype), noise(*shape, seed=1).to(dtype)
    forward, backward = through_autograd(f, leaf(x), gy=gy)
    ours = lambda: layer.vjp({}, layer.apply({}, x)[1], gy)
    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward())}


def layer_norm(shape: tuple[int, int], dtype: torch.dtype) -> Ways:
    """Return the contenders for layer norm, with params in the dtype of the input."""
    layer, x, gy = fn.LayerNorm(shape[-1]), noise(*shape).to(dtype), noise(*shape, seed=1).to(dtype)
    params = fn.tree.cast(layer.init(0), dtype)
    f = lambda x, w, b: functional.layer_norm(x, shape[-1:], w, b)
    forward, backward = through_autograd(f, leaf(x), leaf(params["weight"]), leaf(params["bias"]), gy=gy)
    ours = lambda: layer.vjp(params, layer.apply(params, x)[1], gy)
    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward())}


MAKERS: dict[str, Callable[..., Ways]] = {**{name: partial(elementwise, name) for name in PAIRS}, "LayerNorm": layer_norm}

ROWS = [
    Row(f"{name}, {shape[0]}×{shape[1]}, {str(dtype)[6:]}", partial(make, shape, dtype))
    for dtype in (torch.float32, torch.bfloat16)
    for name, make in MAKERS.items()
    for shape in SHAPES
]
