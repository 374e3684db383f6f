"""Compare one model with its net from ``from_torch``: outputs, gradients and running statistics."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import funcnet as fn
from examples.torchvision_models import library
from funcnet.contract import Params
from funcnet.interop.torch_nn import from_torch

BATCH = 2
LARGE = 40_000_000
"""Models with more parameters are compared in float32 and in evaluation, to save memory."""


@dataclass(frozen=True)
class Judged:
    """The differences of one model, relative to the tensor's largest number; or the reason why it was not converted."""

    name: str
    params: int
    dtype: str
    training: tuple[float, ...] | None = None
    evaluation: tuple[float, ...] | None = None
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether all differences are within the rounding of the dtype."""
        bound = 1e-7 if self.dtype == "float64" else 1e-4
        found = [*(self.training or ()), *(self.evaluation or (float("inf"),))]
        return not self.reason and all(one <= bound for one in found)


def judge(name: str) -> Judged:
    """Convert a model and compare it with its net."""
    torch.manual_seed(0)
    module = library.make(name)
    count = sum(p.numel() for p in module.parameters())
    is_large = count > LARGE
    module = module if is_large else module.double()
    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    try:
        net, params = from_torch(module)
    except ValueError as error:
        return Judged(name, count, dtype, reason=str(error).removeprefix("from_torch: "))
    side = library.size(name, module)
    x = fn.random.normal(fn.key(0), (BATCH, 3, side, side), dtype=next(module.parameters()).dtype)
    x = x.contiguous(
        memory_format=torch.channels_last
    )  # the memory order that funcnet's kernels prefer: in another order float32 rounds differently
    training = None if is_large else compared(module.train(), net, params, x)
    evaluation = compared(module.eval(), net.inference(), params, x, stats=False)
    return Judged(name, count, dtype, training, evaluation)


def compared(module: nn.Module, net: fn.Layer, params: Params, x: Tensor, stats: bool = True) -> tuple[float, ...]:
    """Return the largest differences of the outputs, the gradients and, in training, the running statistics."""
    module.zero_grad()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    want = listed(module(x))
    gys = [fn.random.normal(fn.key(i), y.shape, dtype=y.dtype) for i, y in enumerate(want)]
    torch.autograd.backward(want, gys)
    y, cache = net.apply(params, x, fn.key(0))
    grads = net.grads(params, cache, tuple(gys) if isinstance(y, tuple) else gys[0])
    theirs = {path: p.grad for path, p in module.named_parameters() if p.grad is not None}
    # The gradient of a bias before a batch norm is 0 up to rounding: it is compared with the largest gradient of all.
    least = 1e-5 * max(float(grad.abs().max()) for grad in theirs.values())
    found = [
        max(map(difference, listed(y), want)),
        max(difference(fn.tree.at(grads, path), grad, least) for path, grad in theirs.items()),
    ]
    if stats:
        after = net.update_stats(params, cache)
        found.append(max([difference(fn.tree.at(after, path), one) for path, one in module.named_buffers()] or [0.0]))
    for path, buffer in module.named_buffers():
        buffer.copy_(before[path])
    return tuple(found)


def listed(value: Any) -> list[Tensor]:
    """List the tensors of an output."""
    return [value] if isinstance(value, Tensor) else [*value]


def difference(one: Tensor, other: Tensor, least: float = 1e-30) -> float:
    """Return the largest difference of two tensors, relative to the largest number of the second, or to ``least``."""
    other = other.detach().double()
    return float((one.double() - other).abs().max() / other.abs().max().clamp_min(least))
