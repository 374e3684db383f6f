"""The workloads: the batch, the loss and the optimizer of each, equal for every contender.

The nets are in the modules of ``peers``, once for each framework.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from attrs import frozen
from torch import Tensor

import funcnet as fn

SCANNED = 10  # steps per call of a scan

SIZES = [(2, 25), (25, 25), (25, 25), (25, 2)]
PYCHROT = [(2, 20), (20, 20), (20, 20), (20, 20), (20, 20)]
VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS = 96, 128, 256, 4, 2
TENSORS, TENSOR = 100, (250, 400)
DEPTH, NARROW = 100, 64


@frozen
class Workload:
    """The training of one workload.

    ``draw`` makes the batch (x, target), ``optimizer`` is the name of a class in ``torch.optim`` with its settings, ``members``
    is the number of nets trained at once, and ``scanned`` means that contenders also take ten steps in one call.
    """

    name: str
    about: str
    draw: Callable[[], tuple[Any, Any]]
    loss: str
    optimizer: tuple[str, dict[str, float]]
    members: int = 1
    scanned: bool = False


def _disk() -> tuple[Tensor, Tensor]:
    x = fn.random.uniform(1, (100, 2))
    inside = ((x - 0.5) ** 2).sum(1) < 1 / (2 * math.pi)
    return x, inside.long()


def _rows(count: int) -> tuple[Tensor, Tensor]:
    """Draw points of the disk task, and a one-hot row for each."""
    x, labels = _disk()
    return x[:count], fn.tree.map(lambda t: (t[:, None] == t.new_tensor([0, 1])).float(), labels[:count])


def _labels(count: int, classes: int) -> Tensor:
    return (fn.random.uniform(2, (count,)) * classes).long()


def _classified(*shape: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that draws noise of this shape, and one of ten labels for each row."""
    return lambda: (fn.random.normal(1, shape), _labels(shape[0], 10))


def _text() -> tuple[Tensor, Tensor]:
    """Draw 8 rows of characters, and the next character of each, flattened like the net's outputs."""
    text = _labels(8 * (LENGTH + 1), VOCABULARY).view(8, LENGTH + 1)
    return text[:, :-1].contiguous(), text[:, 1:].flatten()


def _regression() -> tuple[Tensor, Tensor]:
    return fn.random.normal(1, (256, NARROW)), fn.random.normal(2, (256, NARROW))


def _gradients() -> tuple[tuple[Tensor, ...], None]:
    return tuple(fn.random.normal(i, TENSOR) for i in range(TENSORS)), None


SGD, MOMENTUM = ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.01, "momentum": 0.9})
ADAM, ADAMW = ("Adam", {"lr": 1e-3}), ("AdamW", {"lr": 1e-3, "weight_decay": 0.01})

WORKLOADS = {
    w.name: w
    for w in (
        Workload("disk_mlp", "2-25-25-25-2 tanh, MSE, SGD, batch 100", lambda: _rows(100), "mse", SGD, scanned=True),
        Workload("mlp_adam", "2-25-25-25-2 ReLU, cross-entropy, Adam, batch 100", _disk, "cross_entropy", ADAM, scanned=True),
        Workload("pychrot", "5 × Linear(20)-Tanh-BatchNorm, MSE, SGD, batch 10", lambda: _rows(10), "mse", SGD, scanned=True),
        Workload("ensemble20", "20 of disk_mlp at once", lambda: _rows(100), "mse", SGD, members=20),
        Workload(
            "lenet",
            "Conv 1→16→32, 5×5, pools, 128, 10, cross-entropy, SGD with momentum, batch 64 of 1×28×28",
            _classified(64, 1, 28, 28),
            "cross_entropy",
            MOMENTUM,
        ),
        Workload(
            "bigmlp", "784-1024-1024-10 ReLU, cross-entropy, AdamW, batch 256", _classified(256, 784), "cross_entropy", ADAMW
        ),
        Workload(
            "gpt", "2 causal blocks, width 256, 4 heads, 8×128 tokens of 96, cross-entropy, AdamW", _text, "cross_entropy", ADAMW
        ),
        Workload(
            "lstm",
            "LSTM 64→128 on 32×64 steps, the last output to 10 classes, cross-entropy, AdamW",
            _classified(32, 64, 64),
            "cross_entropy",
            ADAMW,
        ),
        Workload("adam", "AdamW alone, 10 M parameters in 100 tensors", _gradients, "none", ADAMW),
        Workload(
            "resnet",
            "residual convolutions 32-64-128 with BatchNorm, cross-entropy, SGD with momentum, batch 32 of 3×32×32",
            _classified(32, 3, 32, 32),
            "cross_entropy",
            MOMENTUM,
        ),
        Workload(
            "deep",
            "100 residual blocks LayerNorm-Linear(64, 256)-GELU-Linear(256, 64), recomputed backward, MSE, AdamW, batch 256",
            _regression,
            "mse",
            ADAMW,
        ),
    )
}


@frozen
class Contender:
    """One kind of step: ``make()`` returns a ``Training``.

    Contenders of one ``family`` differ only in settings, and the best one represents the family. A call takes ``steps`` steps.
    """

    label: str
    family: str
    make: Callable[[], Any]
    steps: int = 1


class Training(ABC):
    """A running training, returned by a contender's ``make``."""

    size: int
    """The number of trained parameters."""

    @abstractmethod
    def run(self, calls: int) -> None:
        """Take steps, and wait for their results."""

    @abstractmethod
    def value(self) -> float | None:
        """Return the last step's loss; ``None`` if there is none."""
