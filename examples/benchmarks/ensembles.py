"""Ensembles of 20: ``ensemble`` beside ``torch.func``, which uses ``vmap`` over stacked params of modules.

Both have the same params and compute the same numbers. ``vmap`` does not support torch.nn's LSTM, so a loop over steps replaces
it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.benchmarks.turns import Ways

MEMBERS = 20
QUOTIENTS = {
    "forward": ("ensemble, forward", "torch.func, forward"),
    "gradients": ("ensemble, gradients", "torch.func, gradients"),
}


class StepwiseLSTM(nn.Module):
    """An LSTM as a loop over its steps, with the output of each."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        cell = nn.LSTMCell(inputs, size)
        self.weight_ih_l0, self.weight_hh_l0 = cell.weight_ih, cell.weight_hh
        self.bias_ih_l0, self.bias_hh_l0 = cell.bias_ih, cell.bias_hh

    def forward(self, x: Tensor) -> Tensor:
        """Run the steps."""
        h = c = x.new_zeros(len(x), self.weight_hh_l0.shape[1])
        inputs, outputs = x @ self.weight_ih_l0.T + (self.bias_ih_l0 + self.bias_hh_l0), []
        for t in range(x.shape[1]):
            i, f, g, o = (inputs[:, t] + h @ self.weight_hh_l0.T).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Mean(nn.Module):
    """The mean over all steps."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        return x.mean(1)


def nets() -> dict[str, tuple[fn.Layer, nn.Module, Tensor, Tensor]]:
    """Return nets by name, for both libraries, with a batch and labels."""
    labels = fn.random.permutation(0, 128) % 2
    features = (fn.Conv2d(1, 6, 5), fn.Tanh(), fn.MaxPool2d(2), fn.Conv2d(6, 16, 5), fn.Tanh(), fn.MaxPool2d(2))
    lenet = fn.serial(*features, fn.Flatten(), fn.Linear(256, 120), fn.Tanh(), fn.Linear(120, 10))
    parts = (nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2))
    its_twin = nn.Sequential(*parts, nn.Flatten(), nn.Linear(256, 120), nn.Tanh(), nn.Linear(120, 10))
    lstm = fn.serial(fn.LSTM(8, 16, batch_first=True), fn.Select(0), fn.Reduce("n t c -> n c", "mean"), fn.Linear(16, 2))
    stepwise = nn.Sequential(StepwiseLSTM(8, 16), nn.Identity(), Mean(), nn.Linear(16, 2))
    return {
        "MLP 2-25-25-25-2, 100 rows": (*_mlps(2, 25, 25, 25, 2), fn.random.normal(0, (100, 2)), labels[:100]),
        "MLP 64-256-256-10, 128 rows": (*_mlps(64, 256, 256, 10), fn.random.normal(1, (128, 64)), labels),
        "LeNet, 32 rows": (lenet, its_twin, fn.random.normal(2, (32, 1, 28, 28)), labels[:32]),
        "LSTM, 32 rows of 16 steps": (lstm, stepwise, fn.random.normal(3, (32, 16, 8)), labels[:32]),
    }


def _mlps(*sizes: int) -> tuple[fn.Layer, nn.Module]:
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())][:-1]
    return fn.mlp(sizes, fn.Tanh()), nn.Sequential(*layers)


def contenders(net: fn.Layer, module: nn.Module, x: Tensor, target: Tensor, members: int = MEMBERS) -> Ways:
    """Return the forward pass and the gradients of all members, for both."""
    both = fn.ensemble(net, members)
    params, step = both.init(0), fn.value_and_grads(both, fn.ensemble(fn.CrossEntropy(), members))
    named = fn.tree.names(params)

    def forward(named: Any) -> Tensor:
        y: Tensor = torch.func.functional_call(module, named, (x,))
        return y

    def loss(named: Any) -> Tensor:
        return nn.functional.cross_entropy(forward(named), target)

    outputs, grads = torch.func.vmap(forward), torch.func.vmap(torch.func.grad_and_value(loss))
    return {
        "torch.func, forward": lambda: outputs(named),
        "ensemble, forward": lambda: both(params, x),
        "torch.func, gradients": lambda: grads(named)[0],
        "ensemble, gradients": lambda: step(params, x, target)[1],
    }


def cases() -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the table."""
    for name, case in nets().items():
        yield name, contenders(*case)
