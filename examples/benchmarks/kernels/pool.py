"""Pooling at the sizes of the LeNet and the residual net: windows of 2×2, side by side."""

from functools import partial

from torch import Tensor
from torch.nn import functional

from examples.benchmarks.kernels.rows import Row, Ways, leaf, noise, through_autograd
from funcnet.kernels import pooling

TWO, NONE, ONE = (2, 2), (0, 0), (1, 1)
HOW = (TWO, TWO, NONE, ONE, False)


def _rectified(*shape: int) -> Tensor:
    return noise(*shape).relu()


def max_forward(shape: tuple[int, ...]) -> Ways:
    """Forward pass: by slices, and by the kernel that finds indices too."""
    x = _rectified(*shape)
    theirs, _ = through_autograd(lambda x: functional.max_pool2d(x, 2), leaf(x))
    return {
        "funcnet": lambda: pooling.tile_max(x, TWO) if pooling.tiles_pay(x, TWO) else pooling.max_pool(x, *HOW),
        "torch.nn": theirs,
        "by slices": lambda: pooling.tile_max(x, TWO),
        "with indices": lambda: pooling.max_pool(x, *HOW),
    }


def max_backward(shape: tuple[int, ...]) -> Ways:
    """Backward pass: from x and y, and from indices."""
    x = _rectified(*shape)
    y, indices = pooling.max_pool(x, *HOW)
    gy = noise(*y.shape, seed=1)
    _, theirs = through_autograd(lambda x: functional.max_pool2d(x, 2), leaf(x), gy=gy)
    by_slices = lambda: pooling.tile_max_backward(gy, x, y, TWO)
    with_indices = lambda: pooling.max_pool_backward(gy, indices, pooling.origin(x, 2), *HOW)
    ours = by_slices if pooling.tiles_pay(x, TWO) else with_indices
    return {"funcnet": ours, "torch.nn": theirs, "by slices": by_slices, "with indices": with_indices}


def avg_both(shape: tuple[int, ...]) -> Ways:
    """Means, forward and backward."""
    x = noise(*shape)
    forward, backward = through_autograd(lambda x: functional.avg_pool2d(x, 2), leaf(x))
    gy = noise(*x.shape[:2], *[n // 2 for n in x.shape[2:]], seed=1)
    how = (TWO, TWO, NONE, False, True, None)

    def ours() -> None:
        pooling.avg_pool(x, *how)
        pooling.avg_pool_backward(gy, pooling.origin(x, 2), *how)

    return {"funcnet": ours, "torch.nn": lambda: (forward(), backward())}


SIZES = {"64×16×28×28": (64, 16, 28, 28), "64×32×14×14": (64, 32, 14, 14)}

ROWS = [
    *[Row(f"max, forward, {name}", partial(max_forward, shape)) for name, shape in SIZES.items()],
    *[Row(f"max, backward, {name}", partial(max_backward, shape)) for name, shape in SIZES.items()],
    *[Row(f"mean, both ways, {name}", partial(avg_both, shape)) for name, shape in SIZES.items()],
]
