"""Schedules: a picture of all of them, with the learning rates from a range test and a plateau rule for a net on digits.

Each panel is one schedule over 200 steps, computed at once with ``torch.func.vmap``. The two panels below show rates that depend
on the losses of a small net. A range test trains for some batches with a growing rate and finds where the loss falls fastest;
``ReduceOnPlateau`` lowers the rate when the validation loss of an epoch has not improved.

    python -m examples.schedules --epochs 40 --seed 0 --out out
"""

import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples.common import arguments, digits, save
from funcnet.contract import Params
from funcnet.random.keys import Key

STEPS, BATCH, COLUMNS = 200, 64, 6
BLUE, RED, GREY = "#31688e", "#c44e52", "#9a9a9a"

SHOWN = {
    "constant": fn.ConstantSchedule(1.0),
    "linear": fn.LinearSchedule(1.0, 0.0, STEPS),
    "polynomial, power 3": fn.PolynomialSchedule(1.0, STEPS, power=3.0),
    "cosine": fn.CosineSchedule(1.0, STEPS),
    "exponential": fn.ExponentialSchedule(1.0, 0.98),
    "exponential staircase": fn.ExponentialSchedule(1.0, 0.6, steps=25, staircase=True),
    "step": fn.StepSchedule(1.0, 50, gamma=0.5),
    "multi-step": fn.MultiStepSchedule(1.0, (100, 150), gamma=0.4),
    "inverse time": fn.InverseTimeSchedule(1.0, 0.05),
    "inverse square root": fn.InverseSquareRootSchedule(1.0, 20),
    "piecewise constant": fn.PiecewiseConstantSchedule((0.3, 1.0, 0.6, 0.1), (20, 80, 150)),
    "piecewise interpolate": fn.PiecewiseInterpolateSchedule((0.1, 1.0, 0.4, 0.0), (40, 110, 200), "cosine"),
    "warm-up, constant": fn.WarmupConstantSchedule(1.0, 30),
    "warm-up, linear": fn.WarmupLinearSchedule(1.0, 30, STEPS),
    "warm-up, cosine": fn.WarmupCosineSchedule(1.0, 30, STEPS),
    "warm-up, exponential": fn.WarmupExponentialSchedule(1.0, 30, 0.98),
    "warm-up, stable, decay": fn.WarmupStableDecaySchedule(1.0, 20, 120, 60),
    "slanted triangular": fn.SlantedTriangularSchedule(1.0, STEPS),
    "cosine annealing": fn.CosineAnnealingSchedule(1.0, 50),
    "cosine restarts": fn.CosineRestartsSchedule(1.0, 29, t_mult=2),
    "cyclic, triangular2": fn.CyclicSchedule(0.05, 1.0, 25, mode="triangular2"),
    "one cycle": fn.OneCycleSchedule(1.0, STEPS),
    "one cycle, momentum": fn.OneCycleMomentumSchedule(STEPS),
    "restarts × decay": fn.CosineRestartsSchedule(1.0, 50) * fn.ExponentialSchedule(1.0, 0.99),
}

net = fn.mlp([64, 64, 10], fn.ReLU())
loss = fn.CrossEntropy()


def rates(schedule: Callable[[Any], Any]) -> Tensor:
    """Return the rates of all steps."""
    found: Tensor = torch.func.vmap(schedule)(torch.arange(STEPS))
    return found


def batches(rng: Key, data: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the batches of an epoch, in an order drawn from ``rng``."""
    x, target = data
    return [(x[rows], target[rows]) for rows in fn.random.permutation(rng, len(target)).split(BATCH)]


def plateau(
    params: Params, lr: float, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int, rng: Key
) -> list[Any]:
    """Train with momentum, and lower the rate on plateaus; return the validation losses and the rates of all epochs."""
    reduce = fn.ReduceOnPlateau(lr, patience=2, factor=0.3, threshold=1e-3, min_lr=1e-4)
    opt = fn.SGD(lr, momentum=0.9)
    state, seen, history = opt.init(params), reduce.init(), []
    for epoch in range(epochs):
        step = fn.train_step(net, loss, opt.replace(lr=float(reduce.rate(seen))))
        for x, target in batches(fn.fold_in(rng, epoch), train):
            params, state, _ = step(params, state, x, target)
        value = float(loss(net(params, test[0]), test[1]))
        history.append((value, float(reduce.rate(seen))))
        seen = reduce.update(value, seen)
    return [*zip(*history, strict=True)]


def gallery(panels: Any) -> None:
    """Draw each schedule into its panel."""
    for panel, (name, schedule) in zip(panels, SHOWN.items(), strict=True):
        values = rates(schedule)
        panel.fill_between(range(STEPS), values, color=BLUE, alpha=0.12, lw=0)
        panel.plot(values, color=BLUE, lw=1.6, solid_capstyle="round")
        panel.set_title(name, fontsize=9.5, loc="left")
        panel.set(xlim=(0, STEPS), ylim=(0, 1.08), xticks=(0, 100, 200), yticks=(0, 0.5, 1))
        panel.tick_params(labelsize=7.5, color=GREY, labelcolor="#555555", length=2.5)
        panel.label_outer()


def range_panel(panel: Any, found: fn.RateRange) -> None:
    """Draw the range test."""
    panel.plot(found.rates, found.losses, color="#c8c8c8", lw=1, label="loss of each batch")
    panel.plot(found.rates, found.smoothed, color=BLUE, lw=1.8, label="running average")
    panel.axvline(found.suggestion, color=RED, lw=1.2, ls="--", label=f"suggestion {found.suggestion:.2g}")
    panel.set_title("lr_range: the rate grows until the loss diverges", fontsize=9.5, loc="left")
    panel.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.3 * found.losses[0]))
    panel.legend(frameon=False, fontsize=8, loc="lower left")


def plateau_panel(panel: Any, values: Any, used: Any) -> None:
    """Draw the validation loss of each epoch, and the rate on a second axis."""
    panel.plot(range(1, len(values) + 1), values, "o-", color=BLUE, ms=2.5, lw=1.2)
    panel.set_title("ReduceOnPlateau: the rate falls when the loss does not", fontsize=9.5, loc="left")
    panel.set(xlabel="epoch", ylim=(0, 1.05 * max(values)))
    panel.set_ylabel("validation loss", color=BLUE)
    right = panel.twinx()
    right.step(range(1, len(used) + 1), used, where="mid", color=RED, lw=1.4)
    right.set_yscale("log")
    right.set_ylabel("learning rate", color=RED)
    right.spines[["top"]].set_visible(False)


def picture(found: fn.RateRange, values: Any, used: Any, options: Namespace) -> None:
    """Draw all schedules and the two rates that are based on losses."""
    rows = math.ceil(len(SHOWN) / COLUMNS)
    figure = plt.figure(figsize=(13.5, 10.0), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.1, 1)).flat
    panels = above.subplots(rows, COLUMNS)
    gallery(panels.flat)
    both = below.subplots(1, 2)
    range_panel(both[0], found)
    plateau_panel(both[1], values, used)
    for panel in (*panels.flat, *both):
        panel.spines[["top"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(GREY)
    for panel in (*panels.flat, both[0]):
        panel.spines[["right"]].set_visible(False)
    save(figure, options, "schedules")


def main(given: list[str] | None = None) -> None:
    """Run the range test and the training with plateaus, print the results, and save the picture."""
    options = arguments(__doc__, given, resumable=False, epochs=40)
    of_data, of_params, of_order = fn.split(fn.key(options.seed), 3)
    train, test = [(images.flatten(1), labels) for images, labels in digits(of_data)]
    params, opt = net.init(of_params), fn.SGD(momentum=0.9)
    step = fn.train_step(net, loss, opt)
    found = fn.lr_range(step, params, opt.init(params), batches(of_order, train), low=1e-4, steps=150)
    print(found)
    values, used = plateau(params, found.suggestion or 0.1, train, test, options.epochs, of_order)
    print(f"validation loss {values[0]:.3f} -> {values[-1]:.3f}, learning rate {used[0]:.3g} -> {used[-1]:.3g}")
    picture(found, values, used, options)


if __name__ == "__main__":
    main()
