"""What gradients of each example cost: a Python loop, ``torch.func.vmap`` of ``torch.func.grad``, and funcnet, in ms.

    python examples/benchmarks/per_example.py

All contenders take turns in one process, on one thread; the table has the median time of each. The loop stacks its gradients, so
that all give the same. Where there are many params most of the time goes to memory that the process gets anew each time.
"""

import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import torch

import funcnet as fn

ROUNDS = 15
Contender = Callable[[], Any]


def nets() -> dict[str, tuple[fn.Layer, torch.Tensor, torch.Tensor]]:
    """Return nets by name, each with a batch and labels."""
    labels = fn.random.permutation(0, 128) % 10
    small = fn.mlp((2, 25, 25, 25, 2), fn.Tanh())
    mlp = fn.serial(fn.Linear(64, 256), fn.Tanh(), fn.Linear(256, 256), fn.Tanh(), fn.Linear(256, 10))
    wide = fn.serial(fn.Linear(784, 1024), fn.ReLU(), fn.Linear(1024, 10))
    word = fn.serial(fn.Embedding(2000, 32), fn.Linear(32, 128), fn.LayerNorm(128), fn.ReLU(), fn.Flatten(), fn.Linear(1024, 10))
    lenet = fn.serial(fn.Conv2d(1, 6, 5), fn.ReLU(), fn.AvgPool2d(2), fn.Flatten(), fn.Linear(6 * 12 * 12, 10))
    block = [fn.Conv2d(64, 64, 3, padding=1), fn.ReLU()]
    deep = fn.serial(fn.Conv2d(8, 64, 3, padding=1), fn.ReLU(), *block * 3, fn.Conv2d(64, 128, 3, stride=2, padding=1), fn.Flatten(), fn.Linear(2048, 10))
    return {
        "mlp 2-25-25-25-2, 100 rows": (small, fn.random.normal(0, (100, 2)), labels[:100] % 2),
        "mlp 64-256-256-10, 128 rows": (mlp, fn.random.normal(1, (128, 64)), labels),
        "mlp 784-1024-10, 64 rows": (wide, fn.random.normal(2, (64, 784)), labels[:64]),
        "words, 8 of 2000, 64 rows": (word, fn.random.permutation(3, 2000)[:512].reshape(64, 8), labels[:64]),
        "convolution, 28×28, 32 rows": (lenet, fn.random.normal(4, (32, 1, 28, 28)), labels[:32]),
        "5 convolutions, 64 channels of 8×8, 32 rows": (deep, fn.random.normal(5, (32, 8, 8, 8)), labels[:32]),
    }


def contenders(net: fn.Layer, x: torch.Tensor, target: torch.Tensor) -> dict[str, Contender]:
    """Return the ways to the same gradients, and to their norms."""
    params, loss = net.init(0), fn.CrossEntropy()
    step, grads, norms = fn.value_and_grads(net, loss), fn.per_example_grads(net, loss), fn.per_example_norms(net, loss)

    def of_one(params: Any, row: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(net(params, row.unsqueeze(0)), label.unsqueeze(0))

    mapped = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))
    return {
        "loop": lambda: _stacked([step(params, x[i : i + 1], target[i : i + 1])[1] for i in range(len(x))]),
        "vmap(grad)": lambda: mapped(params, x, target),
        "per_example_grads": lambda: grads(params, x, target),
        "norms of these": lambda: _norms(grads(params, x, target)[1]),
        "per_example_norms": lambda: norms(params, x, target)[1],
    }


def _stacked(grads: list[Any]) -> Any:
    return fn.tree.map(lambda *leaves: torch.stack(leaves), *grads)


def _norms(grads: Any) -> torch.Tensor:
    return torch.stack([leaf.flatten(1).square().sum(1) for leaf in fn.tree.leaves(grads)]).sum(0).sqrt()


def measured(ways: dict[str, Contender], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median time of each in ms; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            start = process_time()
            work()
            times[name].append(1e3 * (process_time() - start))
    return {name: statistics.median(one[1:]) for name, one in times.items()}


def main(rounds: int = ROUNDS) -> None:
    """Measure all nets, and print a table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, (net, x, target) in nets().items():
        found = measured(contenders(net, x, target), rounds)
        print(name, *[f"  {way:20}{time:9.2f}" for way, time in found.items()], sep="\n")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
