"""Depth: ``repeat`` of 32 residual blocks beside ``serial`` of the same blocks, in eager mode.

Both have the same params and compute the same numbers: 32 leaves of ``serial`` are one stacked leaf of ``repeat``.
"""

from collections.abc import Iterator
from typing import Any

import torch

import funcnet as fn
from examples.benchmarks.turns import Ways

BLOCKS = 32
SIZES = ((16, 32), (64, 64), (64, 512), (128, 64), (256, 64), (512, 32))
WORK = ("forward", "gradients", "SGD step", "Adam step")
QUOTIENTS = {work: (f"repeat, {work}", f"serial, {work}") for work in WORK}


def contenders(size: int, rows: int, n: int = BLOCKS) -> Ways:
    """Return the forward pass, forward and backward pass, and training steps of both."""
    block = fn.residual(fn.serial(fn.LayerNorm(size), fn.Linear(size, 2 * size), fn.GELU(), fn.Linear(2 * size, size)))
    x = fn.random.normal(0, (rows, size))
    both = {"serial": fn.serial(*[block] * n), "repeat": fn.repeat(block, n)}
    ways = {name: _work(net, net.init(0), x) for name, net in both.items()}
    return {f"{name}, {work}": ways[name][work] for work in WORK for name in both}


def _work(net: fn.Layer, params: Any, x: torch.Tensor) -> Ways:
    """Return the functions for one net."""
    target, steps = torch.zeros_like(x), {"SGD step": fn.SGD(0.01), "Adam step": fn.Adam(0.001)}
    return {
        "forward": lambda: net(params, x),
        "gradients": lambda: _gradients(net, params, x),
        **{
            name: _stepping(fn.train_step(net, fn.MSE(), opt), opt.init(params), params, x, target) for name, opt in steps.items()
        },
    }


def _gradients(net: fn.Layer, params: Any, x: torch.Tensor) -> Any:
    y, cache = net.apply(params, x)
    return net.vjp(params, cache, y)


def _stepping(step: Any, state: Any, params: Any, x: torch.Tensor, target: torch.Tensor) -> Any:
    return lambda: step(params, state, x, target)


def cases() -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the table."""
    for size, rows in SIZES:
        yield f"{rows} rows of {size}", contenders(size, rows)
