"""Convolutions of the LeNet and the residual net."""

from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional

import funcnet as fn
from examples.benchmarks.kernels.rows import Row, Ways, fresh, leaf, noise, through_autograd

LAST = torch.channels_last


@frozen
class Case:
    """A convolution of square windows, padded to keep the size."""

    images: tuple[int, int, int, int]
    out: int
    kernel: int
    stride: int = 1
    is_first: bool = False
    """The input is data, which needs no gradient."""

    def tensors(self) -> tuple[Tensor, Any]:
        """Draw an input and params."""
        return noise(*self.images), self.layer().init(0)

    def layer(self) -> fn.Layer:
        """Return funcnet's layer."""
        return fn.Conv2d(self.images[1], self.out, self.kernel, stride=self.stride, padding=self.kernel // 2)


def _last(tree: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tree, "weight": tree["weight"].contiguous(memory_format=LAST)}


def forward(case: Case) -> Ways:
    """Return the contenders for the forward pass, in memory kept by the process and in fresh memory."""
    layer, (x, params) = case.layer(), case.tensors()
    ours = lambda x=x, params=params: layer.apply(params, x)
    w, b = leaf(params["weight"]), leaf(params["bias"])
    theirs, _ = through_autograd(lambda x, w, b: functional.conv2d(x, w, b, case.stride, case.kernel // 2), x, w, b)
    last = partial(ours, x.contiguous(memory_format=LAST), _last(params))
    return {"funcnet": ours, "torch.nn": theirs, "channels_last": last, "fresh memory": fresh(ours)}


def backward(case: Case) -> Ways:
    """Return the contenders for the backward pass: all gradients in one call or two, and in channels_last."""
    layer, (x, params) = case.layer(), case.tensors()
    y, cache = layer.apply(params, x)
    gy = torch.empty_like(y).copy_(noise(*y.shape, seed=1))  # in the memory order of y
    one = lambda params=params, cache=cache, gy=gy: layer.vjp(params, cache, gy)
    half = lambda params=params, cache=cache, gy=gy: layer.grads(params, cache, gy)
    w, b = leaf(params["weight"]), leaf(params["bias"])
    inputs = (x if case.is_first else leaf(x), w, b)
    _, theirs = through_autograd(lambda x, w, b: functional.conv2d(x, w, b, case.stride, case.kernel // 2), *inputs, gy=gy)
    of_last = (_last(params), x.contiguous(memory_format=LAST), gy.contiguous(memory_format=LAST))
    return {
        "funcnet": half if case.is_first else one,
        "torch.nn": theirs,
        "channels_last": partial(half if case.is_first else one, *of_last),
        "params only": half,
        "input only": lambda: layer.input_grad(params, cache, gy),
        "params only, channels_last": partial(half, *of_last),
        "fresh memory": fresh(half if case.is_first else one),
    }


CASES = {
    "1→16, 5×5 on 64×28×28, first": Case((64, 1, 28, 28), 16, 5, is_first=True),
    "16→32, 5×5 on 64×14×14": Case((64, 16, 14, 14), 32, 5),
    "3→32, 3×3 on 32×32×32, first": Case((32, 3, 32, 32), 32, 3, is_first=True),
    "32→32, 3×3 on 32×32×32": Case((32, 32, 32, 32), 32, 3),
    "32→64, 3×3 by 2 on 32×32×32": Case((32, 32, 32, 32), 64, 3, 2),
    "64→64, 3×3 on 32×16×16": Case((32, 64, 16, 16), 64, 3),
    "64→128, 3×3 by 2 on 32×16×16": Case((32, 64, 16, 16), 128, 3, 2),
    "128→128, 3×3 on 32×8×8": Case((32, 128, 8, 8), 128, 3),
    "32→64, 1×1 by 2 on 32×32×32": Case((32, 32, 32, 32), 64, 1, 2),
    "64→128, 1×1 by 2 on 32×16×16": Case((32, 64, 16, 16), 128, 1, 2),
}

ROWS = [
    *[Row(f"{name}, forward", partial(forward, case)) for name, case in CASES.items()],
    *[Row(f"{name}, backward", partial(backward, case)) for name, case in CASES.items()],
]
