"""Gradients of each example: a Python loop, ``torch.func.vmap`` of ``torch.func.grad``, and funcnet; and their norms.

The loop stacks its gradients, so that all contenders return the same result. ``batch`` is the ordinary gradient of the whole
batch, for comparison.
"""

from collections.abc import Iterator
from typing import Any

import torch

import funcnet as fn
from examples.benchmarks.turns import Ways

QUOTIENTS = {
    "loop / grads": ("loop", "per_example_grads"),
    "vmap(grad) / grads": ("vmap(grad)", "per_example_grads"),
    "stored / norms": ("norms of stored", "per_example_norms"),
}


def nets() -> dict[str, tuple[fn.Layer, torch.Tensor, torch.Tensor]]:
    """Return nets by name, each with a batch and labels."""
    labels = fn.random.permutation(0, 128) % 10
    small = fn.mlp((2, 25, 25, 25, 2), fn.Tanh())
    mlp = fn.serial(fn.Linear(64, 256), fn.Tanh(), fn.Linear(256, 256), fn.Tanh(), fn.Linear(256, 10))
    wide = fn.serial(fn.Linear(784, 1024), fn.ReLU(), fn.Linear(1024, 10))
    word = fn.serial(fn.Embedding(2000, 32), fn.Linear(32, 128), fn.LayerNorm(128), fn.ReLU(), fn.Flatten(), fn.Linear(1024, 10))
    one = fn.serial(fn.Conv2d(1, 6, 5), fn.ReLU(), fn.AvgPool2d(2), fn.Flatten(), fn.Linear(6 * 12 * 12, 10))
    middle = (fn.Conv2d(64, 64, 3, padding=1), fn.ReLU()) * 3
    last = (fn.Conv2d(64, 128, 3, stride=2, padding=1), fn.Flatten(), fn.Linear(2048, 10))
    five = fn.serial(fn.Conv2d(8, 64, 3, padding=1), fn.ReLU(), *middle, *last)
    return {
        "MLP 2-25-25-25-2, 100 rows": (small, fn.random.normal(0, (100, 2)), labels[:100] % 2),
        "MLP 64-256-256-10, 128 rows": (mlp, fn.random.normal(1, (128, 64)), labels),
        "MLP 784-1024-10, 64 rows": (wide, fn.random.normal(2, (64, 784)), labels[:64]),
        "8 of 2000 words, 64 rows": (word, fn.random.permutation(3, 2000)[:512].reshape(64, 8), labels[:64]),
        "1 convolution, 28×28, 32 rows": (one, fn.random.normal(4, (32, 1, 28, 28)), labels[:32]),
        "5 convolutions, 64 of 8×8, 32 rows": (five, fn.random.normal(5, (32, 8, 8, 8)), labels[:32]),
    }


def contenders(net: fn.Layer, x: torch.Tensor, target: torch.Tensor) -> Ways:
    """Return functions that compute the same gradients, or their norms."""
    params, loss = net.init(0), fn.CrossEntropy()
    step, grads, norms = fn.value_and_grads(net, loss), fn.per_example_grads(net, loss), fn.per_example_norms(net, loss)

    def of_one(params: Any, row: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(params, row.unsqueeze(0)), label.unsqueeze(0))

    mapped = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))
    return {
        "batch": lambda: step(params, x, target)[1],
        "loop": lambda: _stacked([step(params, x[i : i + 1], target[i : i + 1])[1] for i in range(len(x))]),
        "vmap(grad)": lambda: mapped(params, x, target),
        "per_example_grads": lambda: grads(params, x, target),
        "norms of stored": lambda: _norms(grads(params, x, target)[1]),
        "per_example_norms": lambda: norms(params, x, target)[1],
    }


def cases() -> Iterator[tuple[str, Ways]]:
    """Yield the rows of the table."""
    for name, (net, x, target) in nets().items():
        yield name, contenders(net, x, target)


def _stacked(grads: list[Any]) -> Any:
    return fn.tree.map(lambda *leaves: torch.stack(leaves), *grads)


def _norms(grads: Any) -> torch.Tensor:
    return (
        torch.stack([torch.linalg.vector_norm(leaf.flatten(1), dim=1) for leaf in fn.tree.leaves(grads)]).square().sum(0).sqrt()
    )
