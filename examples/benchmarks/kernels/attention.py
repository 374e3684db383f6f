"""Causal attention with several heads, in float32 and in bfloat16, with each kernel."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd

ALTERNATIVES = {
    torch.float32: {"formula": {"attention": "formula"}},
    torch.bfloat16: {
        "flash": {"products of backward attention": "flash", "backward attention in bfloat16": "bfloat16"},
        "flash in float32": {"products of backward attention": "flash", "backward attention in bfloat16": "float32"},
        "products": {"products of backward attention": "products"},
    },
}
"""The choices that each alternative forces."""

_layer = fn.ScaledDotProductAttention(is_causal=True)
_theirs = partial(functional.scaled_dot_product_attention, is_causal=True)


def _heads(shape: tuple[int, int, int, int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Draw heads laid out as after a projection: (N, heads, steps, E), with the axes of heads and steps swapped in memory."""
    n, heads, steps, size = shape
    return noise(n, steps, heads, size, seed=seed).to(dtype).transpose(1, 2)


def forward(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Ways:
    """Return the contenders for scores, softmax and the sum of the values."""
    x = tuple(_heads(shape, dtype, seed) for seed in range(3))
    theirs, _ = through_autograd(_theirs, *map(leaf, x))
    return {"funcnet": lambda: _layer.apply({}, x), "torch.nn": theirs}


def backward(shape: tuple[int, int, int, int], dtype: torch.dtype) -> Ways:
    """Return the contenders for the gradients of queries, keys and values."""
    x, gy = tuple(_heads(shape, dtype, seed) for seed in range(3)), _heads(shape, dtype, 3)
    _, theirs = through_autograd(_theirs, *map(leaf, x), gy=gy)
    _, cache = _layer.apply({}, x)
    ways: Ways = {"funcnet": lambda: _layer.vjp({}, cache, gy), "torch.nn": theirs}
    return ways | {name: forced(x, gy, choices) for name, choices in ALTERNATIVES[dtype].items()}


def forced(x: tuple[torch.Tensor, ...], gy: torch.Tensor, choices: dict[str, str]) -> partial[Any]:
    """Return the backward pass with forced choices, on a cache made with them."""
    _, cache = _under(choices, lambda: _layer.apply({}, x))
    return partial(_under, choices, lambda: _layer.vjp({}, cache, gy))


def _under(choices: dict[str, str], f: Callable[[], Any]) -> Any:
    if not choices:
        return f()
    (name, option), *others = choices.items()
    with fn.kernels.forced(name, option):
        return _under(dict(others), f)


SHAPES = [(8, 4, 64, 32), (16, 4, 64, 64), (8, 4, 128, 64), (4, 4, 256, 64), (2, 4, 512, 64)]

ROWS = [
    Row(f"{'×'.join(map(str, shape))}, {way.__name__}, {str(dtype)[6:]}", partial(way, shape, dtype))
    for dtype in ALTERNATIVES
    for way in (forward, backward)
    for shape in SHAPES
]
