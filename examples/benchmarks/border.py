"""The cost of the border to autograd: a net in ``as_module``, beside the same modules of torch.nn and the bare net.

Each contender runs one forward and backward pass, from a gradient of y to the gradients of params and x. A call of the module
adds the work of ``torch.autograd.Function``: it collects the parameters, saves the cache, and returns the gradients. For
2-25-25-25-2 a module adds 80 µs, of which an empty function of its nine tensors, which saves seven more, takes 46.

    python -m examples.benchmarks.border
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.benchmarks.command import new_parser, positive, printed, run_command
from examples.benchmarks.turns import Ways, table
from funcnet.interop.torch_nn import as_module

QUOTIENTS = {"module / net": ("as_module", "funcnet"), "module / torch.nn": ("as_module", "torch.nn")}


def mlp() -> tuple[fn.Layer, nn.Module, Tensor]:
    """Return 2-25-25-25-2 with tanh, and 100 rows."""
    sizes = (2, 25, 25, 25, 2)
    pairs = [*pairwise(sizes)]
    ours = [layer for a, b in pairs for layer in (fn.Linear(a, b), fn.Tanh())][:-1]
    theirs = [module for a, b in pairs for module in (nn.Linear(a, b), nn.Tanh())][:-1]
    return fn.serial(*ours), nn.Sequential(*theirs), torch.randn(100, 2)


class Block(nn.Module):
    """The basic block of a ResNet, in torch.nn."""

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
        """Add x to the output of the convolutions."""
        return torch.relu(x + self.body(x))


def block() -> tuple[fn.Layer, nn.Module, Tensor]:
    """Return the block with 64 channels, and 8 images of 28×28."""
    conv = lambda: fn.Conv2d(64, 64, 3, padding=1, bias=False)
    body = fn.serial(conv(), fn.BatchNorm2d(64), fn.ReLU(), conv(), fn.BatchNorm2d(64))
    return fn.serial(fn.residual(body), fn.ReLU()), Block(64), torch.randn(8, 64, 28, 28)


def ways(net: fn.Layer, theirs: nn.Module, x: Tensor, times: int = 1) -> Ways:
    """Return three functions that run a net forward and backward ``times`` times, and return the gradients."""
    params = net.init(0)
    module, given = as_module(net, params), x.clone().requires_grad_()
    gy = torch.ones_like(net(params, x))

    def bare() -> Any:
        gparams: Any = None
        gx: Any = None
        for _ in range(times):
            _, cache = net.apply(params, x)
            gparams, gx = net.vjp(params, cache, gy)
        return [gx, *fn.tree.leaves(gparams)]

    def through(one: nn.Module) -> Any:
        leaves = [given, *one.parameters()]

        def run() -> Any:
            found: Any = ()
            for _ in range(times):
                found = torch.autograd.grad(one(given), leaves, gy)
            return found

        return run

    theirs.load_state_dict(dict(zip(theirs.state_dict(), module.state_dict().values(), strict=True)))
    return {"funcnet": bare, "as_module": through(module), "torch.nn": through(theirs)}


def border(rounds: int = 30) -> Iterator[str]:
    """Yield the lines of the table, in ms."""
    cases = [
        ("100 times 2-25-25-25-2, 100 rows", ways(*mlp(), times=100)),
        ("a ResNet block of 64 channels, 8×28×28", ways(*block())),
    ]
    yield from table(cases, QUOTIENTS, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = new_parser("border", __doc__)
    parser.add_argument("--rounds", type=positive, default=30, help="rounds in which each contender has a turn")
    printed(border(parser.parse_args(arguments).rounds))


if __name__ == "__main__":
    run_command(main)
