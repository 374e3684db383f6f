"""Writes in traced code: what reads a tensor after a write sees it, as in the module, or the module is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import funcnet as fn
from funcnet.interop.torch_nn import from_torch


class Traced(nn.Module):
    """A module with a function as its forward, and parts that it may call."""

    def __init__(self, code: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.0)
        self.series = nn.Sequential(nn.Identity(), nn.Sequential(nn.LeakyReLU(inplace=True), nn.Tanh()))
        self.within = Inner()
        self.quiet = nn.Sequential(nn.LeakyReLU(0.2), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x * 1)


class Inner(nn.Module):
    """A module that writes to its input, and returns something else."""

    def forward(self, x: Tensor) -> Tensor:
        x += 1
        return x * 2


def _augmented(_: nn.Module, x: Tensor) -> Tensor:
    y = x
    x += 1
    x *= y
    x -= 0.5
    x /= 2
    return x + y


def _sizes(_: nn.Module, x: Tensor) -> Tensor:
    n = x.shape[1]
    m = n
    n += 1
    return x.reshape(m, n - 2)


def _twice(m: nn.Module, x: Tensor) -> Tensor:
    y = m.relu(x)
    x.add_(1)
    return x * y


CODE: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a module": lambda m, x: x - 2 * m.relu(x),
    "a module, read before": lambda m, x: x * 2 + m.relu(x),
    "a function": lambda m, x: F.elu(x, inplace=True) + 3 * x,
    "a function by position": lambda m, x: F.relu(x, True) + 3 * x,
    "a function with an underscore": lambda m, x: torch.relu_(x) + 3 * x,
    "a method": lambda m, x: x.mul_(2) + 3 * x,
    "x += y": _augmented,
    "n += 1 of a size": _sizes,
    "two writes": _twice,
    "modules in series": lambda m, x: m.series(x) + 3 * x,
    "a module within": lambda m, x: m.within(x) + 3 * x,
    "modules that write to their own": lambda m, x: m.quiet(x) + 3 * x,
    "a copy": lambda m, x: F.relu(x.clone(), inplace=True) + 3 * x,
    "a view that is not read again": lambda m, x: F.relu(x.flatten(1), inplace=True).reshape(2, 3),
    "operator.and_ writes to nothing": lambda m, x: ((x > 0) & (x < 1)).to(x.dtype) + x,
}


WITHOUT_AUTOGRAD = {"two writes", "x += y"}
"""Code whose gradient autograd refuses to compute, as it needs what was written over."""


@pytest.mark.parametrize("name", CODE)
def test_what_is_read_after_a_write_is_what_was_written(name: str) -> None:
    """In y and in the gradient, in training and in evaluation."""
    module, x = Traced(CODE[name]).double(), fn.random.normal(0, (2, 3), dtype=torch.float64)
    net, params = from_torch(module)
    given = x.clone().requires_grad_()
    want = module(given)
    gy = fn.random.normal(1, tuple(want.shape), dtype=torch.float64)
    for one in (net, net.inference()):
        y, cache = one.apply(params, x)
        torch.testing.assert_close(y, want.detach())
        if name not in WITHOUT_AUTOGRAD:
            torch.testing.assert_close(one.vjp(params, cache, gy)[1], torch.autograd.grad(want, given, gy, retain_graph=True)[0])


REFUSED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "relu writes to a tensor that is read later": lambda m, x: m.relu(m.dropout(x)) + 3 * x,
    "add_ writes to a tensor that is read later": lambda m, x: x[0].add_(1) + x,
    "relu_ writes to a tensor that is read later": lambda m, x: (x.t(), torch.relu_(x))[0] * 2,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_write_to_a_tensor_that_is_read_by_another_name_is_refused(reason: str) -> None:
    """A view of it, or what may be one."""
    with pytest.raises(ValueError, match=f"from_torch: Traced cannot be converted: {reason}"):
        from_torch(Traced(REFUSED[reason]))
