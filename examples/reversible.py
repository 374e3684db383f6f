"""Reversible: a net of 64 reversible blocks learns to separate two spirals, with the memory of a net of two blocks.

    y₁ = x₁ + f(x₂)      y₂ = x₂ + g(y₁)      therefore x₂ = y₂ - g(y₁), x₁ = y₁ - f(x₂)

The backward pass restores each block's input from its output. Plain blocks with the same formula keep all their caches.

    python -m examples.reversible --epochs 20 --blocks 64 --out out
"""

import math
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, finished, save
from funcnet.contract import Params
from funcnet.random.keys import Key

WIDTH, ROWS = 16, 600
DEPTHS = 2, 8, 32, 128

step = fn.serial(fn.LayerNorm(WIDTH), fn.Linear(WIDTH, WIDTH), fn.Tanh(), fn.Rescale(0.1))
reversible_block = fn.reversible(step, step)
plain_block = fn.graph(
    "x1", "x2", f=(step, "x2"), y1=(fn.Add(), "x1", "f"), g=(step, "y1"), y2=(fn.Add(), "x2", "g"), output=("y1", "y2")
)  # fmt: skip


def network(block: fn.Layer, n: int) -> fn.Layer:
    """Return a classifier of points in the plane with n blocks, whose input is a pair."""
    return fn.serial(fn.branch(fn.Linear(2, WIDTH), fn.Linear(2, WIDTH)), *[block] * n, fn.Concat(-1), fn.Linear(2 * WIDTH, 2))


def spirals(rng: Key, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Draw points (rows, 2) on two spirals of one and a half turns, with noise, and label each with its spiral."""
    first, second = fn.split(rng)
    along, labels = fn.random.uniform(first, (rows,)).sqrt(), torch.arange(rows) % 2
    angle = 3 * math.pi * along + math.pi * labels
    points = torch.stack([along * angle.cos(), along * angle.sin()], 1)
    return points + 0.02 * fn.random.normal(second, (rows, 2)), labels


def cache_bytes(block: fn.Layer, n: int, x: Tensor) -> int:
    """Return the bytes that a net of n blocks keeps for the backward pass."""
    return fn.summary(network(block, n), x).total.cache_bytes


def picture(memory: dict[str, Any], net: fn.Layer, params: Params, history: fn.History, test: tuple[Tensor, Tensor]) -> Figure:
    """Draw the memory by depth, the learning curve, and the net's output over the plane."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    for name, sizes in memory.items():
        left.plot(DEPTHS, [size / 1e6 for size in sizes], marker="o", label=name)
    left.set(title=f"kept for the backward pass, {ROWS} rows", xlabel="blocks", ylabel="MB", xscale="log", yscale="log")
    left.set_xticks(DEPTHS, DEPTHS, minor=False)
    left.minorticks_off()
    left.legend()
    middle.plot(history["epoch"], history["loss"])
    middle.set(title="training", xlabel="epoch", ylabel="cross-entropy", yscale="log")
    middle.xaxis.get_major_locator().set_params(integer=True)
    points = torch.cartesian_prod(*[torch.linspace(-1.2, 1.2, 121)] * 2)
    chance = net(params, points).softmax(1)[:, 1].reshape(121, 121)
    right.imshow(chance.mT.numpy(), origin="lower", extent=(-1.2, 1.2, -1.2, 1.2), cmap="RdBu", vmin=-1, vmax=2)
    right.scatter(*test[0].mT.numpy(), c=test[1].numpy(), s=9, cmap="RdBu")
    right.set(title="predicted probabilities and test points", xticks=[], yticks=[])
    return figure


def main(given: list[str] | None = None) -> None:
    """Compare the memory, train, evaluate on new points, and save the picture."""
    options = arguments(__doc__, given, epochs=20, blocks=64)
    data, held_out, first = fn.split(options.seed, 3)
    train, test = spirals(data), spirals(held_out)
    blocks = {"plain": plain_block, "reversible": reversible_block}
    memory = {name: [cache_bytes(block, n, train[0]) for n in DEPTHS] for name, block in blocks.items()}
    print(f"{'blocks':>8} {'plain, MB':>12} {'reversible, MB':>15}")
    for n, *sizes in zip(DEPTHS, *memory.values(), strict=True):
        print(f"{n:8} {sizes[0] / 1e6:12.2f} {sizes[1] / 1e6:15.2f}")
    net, loss = network(reversible_block, options.blocks), fn.CrossEntropy()
    opt = fn.Adam(lr=fn.CosineSchedule(1e-2, options.epochs * ROWS // 100))
    kept = checkpoints(options, "reversible")
    fitted = fn.fit(net, loss, opt, train, epochs=options.epochs, batch_size=100, key=first, checkpoints=kept)
    accuracy = float(fn.accuracy(net(fitted.params, test[0]), test[1]))
    print(f"{options.blocks} blocks, training loss {fitted.history['loss'][-1]:.4f}, test accuracy {accuracy:.4f}")
    save(picture(memory, net, fitted.params, fitted.history, test), options, "reversible")
    finished(kept)


if __name__ == "__main__":
    main()
