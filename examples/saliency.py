"""Saliency: the pixels that made a net see a 3, by gradient, guided backpropagation, and relevance propagation (LRP).

Each method is a backward rule, which ``with_vjp`` and ``map_layers`` insert in a trained net in one line; params do not change:

    gradient    |gx| of the score of the class (Simonyan et al. 2014), or x ⊙ gx
    guided      gx, if only positive gradients pass through a ReLU (Springenberg et al. 2015)
    LRP-ε       x ⊙ gx, if each layer first multiplies gy by y / (y + ε sign y) (Bach et al. 2015, eq. 58)

A map is good if the net depends on the marked pixels: the test digits are classified again without their 5, 10 and 15 most
salient pixels of ink. By this measure LRP-ε is no better than x ⊙ gx, of which it is a variant in ReLU nets (Ancona et al. 2018).

    python -m examples.saliency --epochs 15 --seed 0 --out out
"""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.contract import Params
from funcnet.random.keys import Key

LR, BATCH, EPS, REMOVED = 3e-3, 64, 0.1, (5, 10, 15)

net = fn.serial(
    fn.Conv2d(1, 16, 3, padding="same"),
    fn.ReLU(),
    fn.Conv2d(16, 32, 3, padding="same"),
    fn.ReLU(),
    fn.MaxPool2d(2),
    fn.Flatten(),
    fn.Dropout(0.3),
    fn.Linear(32 * 4 * 4, 10),
)


def guided(vjp: Callable[[Tensor], Any], x: Tensor, y: Tensor, gy: Tensor) -> Any:
    """Pass only positive gradients."""
    return vjp(gy.relu())


def relevance(vjp: Callable[[Tensor], Any], x: Tensor, y: Tensor, gy: Tensor) -> Any:
    """Multiply gy by y / (y + ε sign y), with ε = EPS; x times the gradient is then the relevance."""
    return vjp(gy * y / (y + torch.where(y < 0, -EPS, EPS)))


def swapped(net: fn.Layer, kinds: Any, rule: Callable[..., Any]) -> fn.Layer:
    """Return the net with another backward rule in layers of some kinds."""
    return fn.map_layers(lambda layer: fn.with_vjp(layer, rule) if isinstance(layer, kinds) else layer, net)


plain = net.inference()
nets = {"gradient": plain, "guided": swapped(plain, fn.ReLU, guided), "LRP-ε": swapped(plain, (fn.Conv2d, fn.Linear), relevance)}


def gradient(net: fn.Layer, params: Params, x: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the score of each image's class with respect to x, by the rules of the net."""
    y, cache = net.apply(params, x)
    gx: Tensor = net.input_grad(params, cache, torch.nn.functional.one_hot(labels, 10).to(y.dtype))
    return gx


def saliency(params: Params, x: Tensor, labels: Tensor, rng: Key) -> dict[str, Tensor]:
    """Return the maps by name, and a random one."""
    gx = {name: gradient(one, params, x, labels) for name, one in nets.items()}
    maps = {"|gx|": gx["gradient"].abs(), "x ⊙ gx": x * gx["gradient"], "guided": gx["guided"], "LRP-ε": x * gx["LRP-ε"]}
    return {**maps, "chance": fn.random.uniform(rng, x.shape)}


def without(x: Tensor, salient: Tensor, count: int) -> Tensor:
    """Return the images with their most salient pixels set to 0, among those with ink."""
    flat = torch.where(x > 0, salient, -torch.inf).flatten(1)
    return x.flatten(1).scatter(1, flat.topk(count).indices, 0.0).view_as(x)


def picture(x: Tensor, labels: Tensor, maps: dict[str, Tensor], options: Namespace) -> None:
    """Draw one image of each digit, and below it the map of each method: red pixels support the class, blue ones oppose it."""
    rows = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    figure, panels = plt.subplots(5, 10, figsize=(11, 6), layout="constrained")
    for column, row in enumerate(rows):
        for panel, (name, map_) in zip(panels[:, column], {"test digit": x, **maps}.items(), strict=False):
            bound = float(map_[row].abs().max())
            style = {"cmap": "Greys"} if name == "test digit" else {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
            panel.imshow(map_[row, 0].numpy(), **style)
            panel.set(xticks=[], yticks=[])
            if column == 0:
                panel.set_ylabel(name)
    figure.suptitle("saliency: red is evidence for the digit, blue against it")
    common.save(figure, options, "saliency")


def main(given: list[str] | None = None) -> None:
    """Train, print the accuracy without the pixels marked by each method, and draw the maps."""
    options = common.arguments(__doc__, given, epochs=15)
    split, fit, chance = fn.split(fn.key(options.seed), 3)
    train, (x, labels) = common.digits(split)
    checkpoints = common.checkpoints(options, "saliency")
    how = {"epochs": options.epochs, "batch_size": BATCH, "key": fit, "checkpoints": checkpoints}
    params = fn.fit(net, fn.CrossEntropy(), fn.AdamW(lr=LR), train, **how).params
    maps = saliency(params, x, labels, chance)
    print(f"test accuracy {float(fn.accuracy(plain(params, x), labels)):.4f}, and without the most salient pixels\n")
    print(f"{'':10}" + "".join(f"{count:8}" for count in REMOVED))
    for name, salient in maps.items():
        right = [float(fn.accuracy(plain(params, without(x, salient, count)), labels)) for count in REMOVED]
        print(f"{name:10}" + "".join(f"{share:8.4f}" for share in right))
    picture(x, labels, maps, options)
    common.finished(checkpoints)


if __name__ == "__main__":
    main()
