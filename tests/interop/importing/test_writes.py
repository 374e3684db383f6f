"""Writes in traced code: a read after a write returns the new value, as in the module, or the module is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import funcnet as fn
from funcnet.interop.torch_nn import from_torch


class Traced(nn.Module):
    """A module with a function as its forward, and parts that it can call."""

    def __init__(self, code: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros(3))
        self.memory = torch.zeros(3)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.0)
        self.series = nn.Sequential(nn.Identity(), nn.Sequential(Named(inplace=True), nn.Tanh()))
        self.within = Inner()
        self.quiet = nn.Sequential(nn.LeakyReLU(0.2), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x * 1)


class Named(nn.LeakyReLU):
    """A class that only adds a name."""


class Inner(nn.Module):
    """A module that writes to its input, and returns another value."""

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


def _without_gradient(m: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = 2 * m.quiet(x) * m.weight
    return x * y


def _clamped(m: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        m.weight.clamp_(max=0.5)
    return x * m.weight


def _counted(m: nn.Module, x: Tensor) -> Tensor:
    m.count += 1
    return x * m.count


def _remembered(m: nn.Module, x: Tensor) -> Tensor:
    m.memory[0] = 1
    return x * m.memory


def _silently(_: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        x.mul_(2)
    return x + 1


def _twice(m: nn.Module, x: Tensor) -> Tensor:
    y = m.relu(x)
    x.add_(1)
    return x * y


CODE: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a module": lambda m, x: x - 2 * m.relu(x),
    "a module, read before": lambda m, x: x * 2 + m.relu(x),
    "a function": lambda m, x: functional.elu(x, inplace=True) + 3 * x,
    "a function by position": lambda m, x: functional.relu(x, True) + 3 * x,
    "a function with an underscore": lambda m, x: torch.relu_(x) + 3 * x,
    "a method": lambda m, x: x.mul_(2) + 3 * x,
    "x += y": _augmented,
    "n += 1 of a size": _sizes,
    "two writes": _twice,
    "modules in series": lambda m, x: m.series(x) + 3 * x,
    "a module within": lambda m, x: m.within(x) + 3 * x,
    "modules that write to their own": lambda m, x: m.quiet(x) + 3 * x,
    "a copy": lambda m, x: functional.relu(x.clone(), inplace=True) + 3 * x,
    "a view that is not read again": lambda m, x: functional.relu(x.flatten(1), inplace=True).reshape(2, 3),
    "torch.no_grad": _without_gradient,
    "operator.and_ writes to nothing": lambda m, x: ((x > 0) & (x < 1)).to(x.dtype) + x,
}


WITHOUT_AUTOGRAD = {"two writes", "x += y"}
"""Code whose gradient autograd cannot compute, because it needs overwritten values."""


@pytest.mark.parametrize("name", CODE)
def test_what_is_read_after_a_write_is_what_was_written(name: str) -> None:
    """This holds for y and the gradient, in training and in evaluation."""
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
    "it writes to its tensor weight": _clamped,
    "it writes to its tensor count": _counted,
    "it writes to its tensor memory": _remembered,
    "it writes to its tensor count, averages": lambda m, x: x * m.count.mul_(0.9).add_(x.mean(0)),
    "mul_ writes under no_grad to a tensor that is read later": _silently,
    "relu_ writes to a tensor that is read later": lambda m, x: (x.t(), torch.relu_(x))[0] * 2,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_write_that_has_no_form_without_writes_is_refused(reason: str) -> None:
    """Examples are reads under another name, the module's own tensors, and writes hidden from autograd; nothing is written."""
    module = Traced(REFUSED[reason])
    with pytest.raises(ValueError, match=f"from_torch: Traced cannot be converted: {reason.partition(', ')[0]}"):
        from_torch(module)
    held = (module.weight.tolist(), module.count.tolist(), module.memory.tolist())
    assert held == ([1.0] * 3, [0.0] * 3, [0.0] * 3), "the module must not change"
