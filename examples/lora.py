"""LoRA: a net trained on the digits 0 to 4 learns 5 to 9 from 100 images, while most of its weights stay fixed.

Four ways are compared: train only a new head on the frozen trunk; train adapters of rank 4 in the trunk too (LoRA, Hu et al.
2022); train all weights; train all weights from scratch. Each is the same net, rewritten in one line. ``add_lora`` inserts
adapters in a trained net, and ``merge_lora`` adds them to its weights, so that prediction costs no more than before.

The task is so small that training from scratch works equally well. Adapters save storage: each task adds 4 thousand numbers
instead of 84 thousand. Learning rates were chosen on held-out training digits.

    python -m examples.lora --epochs 60 --seed 0 --out out
"""

from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.contract import Params
from funcnet.random.keys import Key

WIDTH, RANK, IMAGES = 256, 4, 100

trunk = fn.serial(fn.Flatten(), fn.Linear(64, WIDTH), fn.ReLU(), fn.Linear(WIDTH, WIDTH), fn.ReLU())
head = fn.Linear(WIDTH, 5)
net = fn.serial(trunk=trunk, head=head)
loss = fn.CrossEntropy()


def halves(images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the digits 0 to 4, and 5 to 9 with labels from 0."""
    low = labels < 5
    return (images[low], labels[low]), (images[~low], labels[~low] - 5)


def ways(pretrained: Params, rng: Key) -> dict[str, tuple[fn.Layer, Params, Any]]:
    """Return a net, its first params and a learning rate for each way."""
    drawn, adapters, scratch = fn.split(rng, 3)
    params = fn.tree.replace(pretrained, "head", head.init(drawn))
    return {
        "head only": (fn.serial(trunk=fn.freeze(trunk), head=head), params, 1e-2),
        "LoRA": (*fn.add_lora(net, params, RANK, adapters, where=in_trunk), 1e-2),
        "all weights": (net, params, 3e-3),
        "from scratch": (net, net.init(scratch), 3e-3),
    }


def in_trunk(path: str, layer: fn.Layer) -> bool:
    """Return whether a layer is a Linear of the trunk."""
    return path.startswith("trunk") and isinstance(layer, fn.Linear)


def trained_numbers(net: fn.Layer, params: Params, images: Tensor) -> int:
    """Return the number of params with a gradient."""
    y, cache = net.apply(params, images[:1])
    return fn.tree.size(net.grads(params, cache, torch.ones_like(y)))


def picture(curves: dict[str, Any], sizes: dict[str, int], options: Namespace) -> None:
    """Draw the test accuracy of each way by epoch, and its number of trained params."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", width_ratios=(2, 1))
    colors = dict(zip(curves, ("tab:blue", "tab:red", "tab:green", "tab:gray"), strict=True))
    for name, curve in curves.items():
        left.plot(range(1, len(curve) + 1), curve, color=colors[name], label=name)
    left.set(title=f"digits 5 to 9, learned from {IMAGES} images", xlabel="epoch", ylabel="test accuracy", ylim=(None, 1))
    left.grid(alpha=0.3)
    left.legend(loc="lower right")
    bars = right.barh([*sizes], [*sizes.values()], color=[colors[name] for name in sizes])
    right.bar_label(bars, [f"{size:,}" for size in sizes.values()], padding=4)
    right.set(title="trained numbers", xlim=(0, 1.3 * max(sizes.values())), xticks=[])
    right.invert_yaxis()
    right.spines[["top", "right", "bottom"]].set_visible(False)
    common.save(figure, options, "lora")


def main(given: list[str] | None = None) -> None:
    """Train on 0 to 4, then on 5 to 9 in four ways; merge the adapters; print and draw the results."""
    options = common.arguments(__doc__, given, resumable=False, epochs=60)
    split, first, new, order = fn.split(fn.key(options.seed), 4)
    (known, unknown), (_, test) = (halves(*part) for part in common.digits(split))
    few = unknown[0][:IMAGES], unknown[1][:IMAGES]
    quiet: dict[str, Any] = {"batch_size": 25, "validation": test, "metrics": (fn.accuracy,), "progress": False}
    pretrained = fn.fit(net, loss, fn.AdamW(lr=3e-3), known, epochs=15, batch_size=64, key=first, progress=False).params
    curves, sizes, found = {}, {}, {}
    print("               numbers trained   test accuracy")
    for name, (way, params, lr) in ways(pretrained, new).items():
        fitted = fn.fit(way, loss, fn.AdamW(lr=lr), few, epochs=options.epochs, key=order, params=params, **quiet)
        curves[name], found[name] = fitted.history["validation_accuracy"], (way, fitted.params)
        sizes[name] = trained_numbers(way, params, few[0])
        print(f"{name:14}{sizes[name]:16}{curves[name][-1]:16.4f}")
    adapted, params = found["LoRA"]
    merged, merged_params = fn.merge_lora(adapted, params)
    gap = (merged(merged_params, test[0]) - adapted(params, test[0])).abs().max()
    print(f"\nmerged: the plain net again ({merged == net}), outputs as with adapters to {gap:.0e}")
    picture(curves, sizes, options)


if __name__ == "__main__":
    main()
