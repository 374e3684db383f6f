"""Pooling at the sizes of the LeNet and the residual net, with adjacent windows of 2×2."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd, with_options
from funcnet.kernels import pooling
from funcnet.kernels.windows import origin

MAXIMA, MEANS = "max pooling", "mean pooling"
TWO, NONE, ONE = (2, 2), (0, 0), (1, 1)
HOW = (TWO, TWO, NONE, ONE, False)


def _rectified(*shape: int) -> Tensor:
    return noise(*shape).relu()


def max_values(shape: tuple[int, ...]) -> Ways:
    """Return the contenders for prediction: maxima without indices."""
    x = _rectified(*shape)
    ours = lambda: pooling.max_pool_values(x, *HOW)
    return {"funcnet": ours, "torch.nn": lambda: functional.max_pool2d(x, 2), **with_options(MAXIMA, ours)}


def max_forward(shape: tuple[int, ...]) -> Ways:
    """Return the contenders for the forward pass in training: maxima and their indices."""
    x = _rectified(*shape)
    theirs, _ = through_autograd(lambda x: functional.max_pool2d(x, 2), leaf(x))
    last = x.contiguous(memory_format=torch.channels_last)
    ours = lambda x=x: pooling.max_pool(x, *HOW)
    return {"funcnet": ours, "torch.nn": theirs, **with_options(MAXIMA, ours), "channels_last": partial(ours, last)}


def max_backward(shape: tuple[int, ...]) -> Ways:
    """Return the contenders for the backward pass from indices."""
    x = _rectified(*shape)
    y, indices = pooling.max_pool(x, *HOW)
    gy = noise(*y.shape, seed=1)
    _, theirs = through_autograd(lambda x: functional.max_pool2d(x, 2), leaf(x), gy=gy)
    return {"funcnet": lambda: pooling.max_pool_backward(gy, indices, origin(x, 2), *HOW), "torch.nn": theirs}


def means(shape: tuple[int, ...]) -> Ways:
    """Return the contenders for means, forward and backward."""
    x = noise(*shape)
    forward, backward = through_autograd(lambda x: functional.avg_pool2d(x, 2), leaf(x))
    gy = noise(*x.shape[:2], *[n // 2 for n in x.shape[2:]], seed=1)
    how = (TWO, TWO, NONE, False, True, None)

    def ours() -> None:
        pooling.avg_pool(x, *how)
        pooling.avg_pool_backward(gy, origin(x, 2), *how)

    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward()), **with_options(MEANS, ours)}


SIZES = {"64×16×28×28": (64, 16, 28, 28), "64×32×14×14": (64, 32, 14, 14)}

ROWS = [
    *[Row(f"max, prediction, {name}", partial(max_values, shape)) for name, shape in SIZES.items()],
    *[Row(f"max, forward, {name}", partial(max_forward, shape)) for name, shape in SIZES.items()],
    *[Row(f"max, backward, {name}", partial(max_backward, shape)) for name, shape in SIZES.items()],
    *[Row(f"mean, both ways, {name}", partial(means, shape)) for name, shape in SIZES.items()],
]
