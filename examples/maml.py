"""MAML: initial weights from which a net learns a new sine from ten points, in one step.

A task is a sine with random amplitude and phase. Within a task the net takes steps of gradient descent on ten points, with its
own ``grads``. The outer loss is the error on ten other points after one step, and its gradient goes through that step to the
initial weights: ``torch.func`` differentiates ``grads`` like any function, a second derivative. The baseline is the same net
trained on all tasks at once, without inner steps. All errors are mean squares on held-out tasks, after steps on ten points of
each.

    python -m examples.maml --epochs 25 --seed 0 --out out
"""

import math
import time
from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, finished, save
from funcnet.contract import Params
from funcnet.optim.base import State
from funcnet.random.keys import Key

TASKS, POINTS, WIDTH, INNER_LR, LR, STEPS_PER_EPOCH, SHOWN = 25, 10, 40, 0.01, 3e-3, 100, 10

net = fn.mlp([1, WIDTH, WIDTH, 1], fn.ReLU())
loss = fn.MSE()


def sines(rng: Key, tasks: int, points: int = POINTS) -> tuple[Tensor, Tensor]:
    """Draw points of sines y = a sin(x - b): x and y (tasks, points, 1), a between 0.1 and 5, b up to π, x between -5 and 5."""
    of_a, of_b, of_x = fn.split(rng, 3)
    a = fn.random.uniform(of_a, (tasks, 1, 1), 0.1, 5.0)
    b = fn.random.uniform(of_b, (tasks, 1, 1), 0.0, math.pi)
    x = fn.random.uniform(of_x, (tasks, points, 1), -5.0, 5.0)
    return x, a * torch.sin(x - b)


def adapted(params: Params, x: Tensor, target: Tensor, steps: int) -> Params:
    """Return the params after gradient descent on the points of one task for a number of steps."""
    for _ in range(steps):
        y, cache = net.apply(params, x)
        grads = net.grads(params, cache, loss.value_and_grad(y, target)[1])
        params = fn.tree.map(lambda p, g: p - INNER_LR * g, params, grads)
    return params


def outer_loss(params: Params, x: Tensor, target: Tensor, steps: int) -> Tensor:
    """Return the mean over tasks of the loss on the second half of the points, after steps on the first half."""

    def of_task(x: Tensor, target: Tensor) -> Tensor:
        return loss(net(adapted(params, x[:POINTS], target[:POINTS], steps), x[POINTS:]), target[POINTS:])

    return torch.func.vmap(of_task)(x, target).mean()


def trained(epochs: int, steps: int, rng: Key, kept: fn.Checkpoints) -> tuple[Params, float]:
    """Train initial weights for adaptation with a number of inner steps; return them and the seconds.

    It does not use ``fit``: it saves its own checkpoint after each epoch, and continues from the newest one.
    """
    first, tasks = fn.split(rng)
    params = net.init(first)
    opt = fn.Adam(fn.CosineSchedule(LR, epochs * STEPS_PER_EPOCH))
    at: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "params": params, "state": opt.init(params)}
    at = kept.load(like=at) if kept.steps() else at
    for epoch in range(at["epoch"], epochs):
        began = time.perf_counter()
        params, state = trained_further(at["params"], at["state"], opt, epoch, steps, tasks)
        seconds = at["seconds"] + time.perf_counter() - began
        at = {"epoch": epoch + 1, "seconds": seconds, "params": params, "state": state}
        kept.save(epoch + 1, at)
    return at["params"], at["seconds"]


def trained_further(params: Params, state: State, opt: fn.Optimizer, epoch: int, steps: int, tasks: Key) -> tuple[Params, State]:
    """Return the params and the optimizer's state after the steps of an epoch."""
    for i in range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH):
        grads = torch.func.grad(outer_loss)(params, *sines(fn.fold_in(tasks, i), TASKS, 2 * POINTS), steps)
        params, state = opt.update(grads, state, params)
    return params, state


def picture(weights: dict[str, Params], errors: dict[str, Any], rng: Key, options: Namespace) -> None:
    """Draw how each net adapts to one new sine, and the errors over the steps on all held-out tasks."""
    figure, (*panels, last) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    points, sine = (half[0] for half in sines(rng, 1, 300))
    axis, x, target = points.sort(0)[0], points[:POINTS], sine[:POINTS]
    for panel, (name, params) in zip(panels, weights.items(), strict=True):
        panel.plot(axis, sine[points[:, 0].argsort()], color="lightgrey", lw=5, label="a new sine")
        panel.scatter(x, target, color="black", zorder=3, label="its ten points")
        for steps, style in ((0, ":"), (1, "--"), (SHOWN, "-")):
            label = "first weights" if steps == 0 else f"after {steps} step{'s' * (steps > 1)}"
            panel.plot(axis, net(adapted(params, x, target, steps), axis), style, label=label)
        panel.set(title=name, xlabel="x", ylabel="y", ylim=(-6, 9))
        panel.legend(loc="upper center", ncols=2)
        last.plot(range(SHOWN + 1), errors[name], "o-", label=name)
    last.set(title="400 held-out tasks", xlabel="steps on ten points", ylabel="mean squared error", ylim=(0, None))
    last.legend()
    save(figure, options, "maml")


def main(given: list[str] | None = None) -> None:
    """Train with and without inner steps, print the errors on held-out tasks, and save the picture."""
    options = arguments(__doc__, given, epochs=25)
    train_key, test_key, shown_key = fn.split(fn.key(options.seed), 3)
    test, weights, errors = sines(test_key, 400, 2 * POINTS), {}, {}
    ways = {"MAML": 1, "pretrained": 0}
    kept = {name: checkpoints(options, f"maml-{name}") for name in ways}
    print(f"{'':16}{'seconds':>9}{'0 steps':>9}{'1 step':>9}{'5 steps':>9}{'10 steps':>9}")
    for name, steps in ways.items():
        weights[name], seconds = trained(options.epochs, steps, train_key, kept[name])
        errors[name] = [float(outer_loss(weights[name], *test, count)) for count in range(SHOWN + 1)]
        print(f"{name:16}{seconds:9.1f}" + "".join([f"{errors[name][count]:9.3f}" for count in (0, 1, 5, 10)]))
    picture(weights, errors, shown_key, options)
    for one in kept.values():
        finished(one)


if __name__ == "__main__":
    main()
