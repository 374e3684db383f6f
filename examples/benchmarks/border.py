"""The border to autograd: a net within ``as_module``, beside the same modules of torch.nn and beside the bare net.

Each way is one forward and backward pass, from a gradient of y to the gradients of params and of x. A call of the module adds the
work of ``torch.autograd.Function`` to that of the net: it takes the parameters from the module, saves the cache, and adds gradients
to ``.grad`` or returns them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.benchmarks.turns import Ways, table
from funcnet.interop.torch_nn import as_module

QUOTIENTS = {"module / net": ("as_module", "funcnet"), "module / torch.nn": ("as_module", "torch.nn")}


def mlp() -> tuple[fn.Layer, nn.Module, Tensor]:
    """Return 2-25-25-25-2 with tanh, and 100 rows."""
    sizes = (2, 25, 25, 25, 2)
    pairs = [*zip(sizes[:-1], sizes[1:], strict=True)]
    ours = [layer for a, b in pairs for layer in (fn.Linear(a, b), fn.Tanh())][:-1]
    theirs = [module for a, b in pairs for module in (nn.Linear(a, b), nn.Tanh())][:-1]
    return fn.serial(*ours), nn.Sequential(*theirs), torch.randn(100, 2)


class Block(nn.Module):
    """The basic block of a ResNet, with the names that ``residual_block`` has."""

    def __init__(self, channels: int) -> None:
        """Make two convolutions."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add x to what the convolutions make of it."""
        return torch.relu(x + self.body(x))


def block() -> tuple[fn.Layer, nn.Module, Tensor]:
    """Return the block of 64 channels, and 8 images of 28×28."""
    conv = lambda: fn.Conv2d(64, 64, 3, padding=1, bias=False)
    body = fn.serial(conv(), fn.BatchNorm2d(64), fn.ReLU(), conv(), fn.BatchNorm2d(64))
    return fn.serial(fn.residual(body), fn.ReLU()), Block(64), torch.randn(8, 64, 28, 28)


def ways(net: fn.Layer, theirs: nn.Module, x: Tensor, times: int) -> Ways:
    """Return the three ways to go through a net forward and backward, so many times."""
    params, module = net.init(0), as_module(net, net.init(0))
    gy, given = torch.ones_like(net(params, x)), x.clone().requires_grad_()

    def bare() -> None:
        for _ in range(times):
            _, cache = net.apply(params, x)
            net.vjp(params, cache, gy)

    def through(one: nn.Module) -> Any:
        leaves = [given, *one.parameters()]

        def run() -> None:
            for _ in range(times):
                torch.autograd.grad(one(given), leaves, gy)

        return run

    return {"funcnet": bare, "as_module": through(module), "torch.nn": through(theirs)}


def border(rounds: int = 30) -> Iterator[str]:
    """Yield the lines of the table, in ms."""
    cases = [
        ("100 steps of 2-25-25-25-2, 100 rows", ways(*mlp(), times=100)),
        ("a ResNet block of 64 channels, 8×28×28", ways(*block(), times=1)),
    ]
    yield from table(cases, QUOTIENTS, rounds)


if __name__ == "__main__":
    print("\n".join(border()))
