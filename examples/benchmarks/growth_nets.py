"""The trainings that ``growth`` measures: one net for each axis in funcnet, torch.nn and JAX, with MSE and plain SGD.

Each function returns a training step as a function without arguments, which continues from the last step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

import funcnet as fn

RATE = 0.01
WIDTH, HEADS = 64, 4
INPUTS, ROWS = 32, 4

Step = Callable[[], Any]


@frozen
class Axis:
    """One axis: its sizes, and a description of the net."""

    name: str
    about: str
    sizes: tuple[int, ...]


AXES = {
    one.name: one
    for one in (
        Axis("width", "Linear(n, n)-ReLU-Linear(n, n), batch 64", (16, 64, 256, 1024, 4096)),
        Axis("depth", "n × (Linear(64, 64)-ReLU), batch 64", (2, 4, 16, 64, 256)),
        Axis("batch", "Linear(64, 128)-ReLU-Linear(128, 64), batch n", (1, 16, 256, 4096, 65536)),
        Axis("attention", "causal attention of width 64 with 4 heads, one sequence of n", (64, 256, 1024, 4096, 16384)),
        Axis("lstm", "LSTM 32→64, 4 sequences of n", (64, 256, 1024, 4096, 16384)),
        Axis("cells", "LSTM cell 32→64 step by step, 4 sequences of n", (64, 256, 1024, 4096, 16384)),
    )
}

NAMES = (
    "funcnet eager",
    "funcnet donated",
    "funcnet compiled",
    "torch.nn eager",
    "JAX jit",
    "JAX donated",
)
"""All contenders. A donated step may overwrite its params, as torch.nn's step always does."""

SKIPPED = {
    ("funcnet compiled", "cells"): "compilation unrolls a scan, so its time grows with n",
    ("funcnet compiled", "attention"): "it calls the same torch kernel as the eager step",
}
"""Contenders that are not measured along an axis, and why."""


def batch(axis: str, n: int) -> tuple[Any, Tensor]:
    """Return x and a target with the shape of y."""
    shapes = {
        "width": ((64, n), (64, n)),
        "depth": ((64, WIDTH), (64, WIDTH)),
        "batch": ((n, WIDTH), (n, WIDTH)),
        "attention": ((1, n, WIDTH), (1, n, WIDTH)),
        "lstm": ((ROWS, n, INPUTS), (ROWS, n, WIDTH)),
        "cells": ((n, ROWS, INPUTS), (n, ROWS, WIDTH)),
    }
    x, target = shapes[axis]
    return torch.randn(x), torch.randn(target)


def _net(axis: str, n: int, *, loop: bool) -> fn.Layer:
    block = fn.serial(fn.Linear(WIDTH, WIDTH), fn.ReLU())
    nets: dict[str, Callable[[], fn.Layer]] = {
        "width": lambda: fn.serial(fn.Linear(n, n), fn.ReLU(), fn.Linear(n, n)),
        "depth": lambda: fn.repeat(block, n) if loop else fn.serial(*[fn.Linear(WIDTH, WIDTH), fn.ReLU()] * n),
        "batch": lambda: fn.serial(fn.Linear(WIDTH, 2 * WIDTH), fn.ReLU(), fn.Linear(2 * WIDTH, WIDTH)),
        "attention": lambda: fn.MultiHeadAttention(WIDTH, HEADS, is_causal=True),
        "lstm": lambda: fn.serial(fn.LSTM(INPUTS, WIDTH, batch_first=True), fn.Pick(0)),
        "cells": lambda: fn.serial(fn.scan(fn.LSTMCell(INPUTS, WIDTH), output_is_carry=True), fn.Pick(0), fn.Pick(0)),
    }
    return nets[axis]()


def funcnet(axis: str, n: int, *, compiled: bool = False, donated: bool = False) -> Step:
    """Return funcnet's step; a compiled deep net has a ``repeat`` of layers."""
    net, opt = _net(axis, n, loop=compiled), fn.donate(fn.SGD(RATE)) if donated else fn.SGD(RATE)
    eager = fn.train_step(net, fn.MSE(), opt)
    step: Callable[..., Any] = fn.compile(eager) if compiled else eager
    x, target = batch(axis, n)
    x = (x, (torch.zeros(ROWS, WIDTH), torch.zeros(ROWS, WIDTH))) if axis == "cells" else x
    params = net.init(0)
    held = [(params, opt.init(params))]
    del params

    def take() -> None:
        with torch.no_grad() if compiled else torch.inference_mode():
            params, state = held.pop()
            held.append(step(params, state, x, target)[:2])

    return take


class Attention(nn.Module):
    """Causal attention with torch's own kernel."""

    def __init__(self) -> None:
        """Make the parameters."""
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention."""
        q, k, v = self.inner(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.outer(y.transpose(1, 2).reshape(x.shape))
        return out


class FirstOf(nn.LSTM):
    """The outputs of an LSTM without its state."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Run the LSTM."""
        return super().forward(x)[0]


class Cells(nn.LSTMCell):
    """An LSTM cell in a loop."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Run the loop."""
        carry, outputs = None, []
        for one in x:
            carry = super().forward(one, carry)
            outputs.append(carry[0])
        return torch.stack(outputs)


def torch_nn(axis: str, n: int) -> Step:
    """Return torch.nn's step, with autograd and the fused SGD of torch.optim."""
    linear = nn.Linear
    modules: dict[str, Callable[[], nn.Module]] = {
        "width": lambda: nn.Sequential(linear(n, n), nn.ReLU(), linear(n, n)),
        "depth": lambda: nn.Sequential(*[one for _ in range(n) for one in (linear(WIDTH, WIDTH), nn.ReLU())]),
        "batch": lambda: nn.Sequential(linear(WIDTH, 2 * WIDTH), nn.ReLU(), linear(2 * WIDTH, WIDTH)),
        "attention": Attention,
        "lstm": lambda: FirstOf(INPUTS, WIDTH, batch_first=True),
        "cells": lambda: Cells(INPUTS, WIDTH),
    }
    module = modules[axis]()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, fused=True)
    x, target = batch(axis, n)

    def take() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), target).backward()
        optimizer.step()

    return take


CONTENDERS: dict[str, Callable[[str, int], Step]] = {
    "funcnet eager": funcnet,
    "funcnet donated": partial(funcnet, donated=True),
    "funcnet compiled": partial(funcnet, compiled=True),
    "torch.nn eager": torch_nn,
}


def contenders() -> dict[str, Callable[[str, int], Step]]:
    """Return all contenders that can run here: JAX only if installed."""
    try:
        from examples.benchmarks.growth_jax import jax_jit
    except ImportError:
        return CONTENDERS
    return {**CONTENDERS, "JAX jit": jax_jit, "JAX donated": partial(jax_jit, donated=True)}
