"""Recurrent layers over 64 steps of 32×64, to 128 features."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, noise

STEPS, BATCH, INSIDE, OUTSIDE = 64, 32, 64, 128

PAIRS: dict[str, tuple[Any, Any, dict[str, tuple[str, str]]]] = {
    "LSTM": (fn.LSTM, nn.LSTM, {"buffers": ("LSTM", "buffers")}),
    "GRU": (fn.GRU, nn.GRU, {"new tensors": ("recurrent buffers", "new tensors")}),
}
"""funcnet's layer, torch.nn's, and the choice that each alternative forces."""


def forward_and_backward(name: str) -> Ways:
    """Return the contenders for the forward pass, and for all gradients given the gradient of all outputs."""
    make, module, alternatives = PAIRS[name]
    layer, x, gy = make(INSIDE, OUTSIDE), noise(STEPS, BATCH, INSIDE), noise(STEPS, BATCH, OUTSIDE, seed=1)
    twin, params = module(INSIDE, OUTSIDE), layer.init(0)
    inputs = [x.clone().requires_grad_(), *twin.parameters()]
    ways: Ways = {
        "funcnet": lambda: _ours(layer, params, x, gy),
        "torch.nn": lambda: torch.autograd.grad(twin(inputs[0])[0], inputs, gy),
    }
    return ways | {label: partial(_forced, *choice, layer, params, x, gy) for label, choice in alternatives.items()}


def _ours(layer: fn.Layer, params: Any, x: Tensor, gy: Tensor) -> object:
    (_, state), cache = layer.apply(params, x)
    return layer.vjp(params, cache, (gy, fn.tree.map(lambda leaf: None, state)))


def _forced(name: str, option: str, *arguments: Any) -> object:
    with fn.kernels.forced(name, option):
        return _ours(*arguments)


ROWS = [Row(f"{name}, forward and backward", partial(forward_and_backward, name)) for name in PAIRS]
