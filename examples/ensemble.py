"""Ensemble: twenty nets in one estimate their uncertainty, from 200 noisy points of a sine with a gap.

Each net has two outputs, the mean and the variance of y at x, and learns both with ``GaussianNLL``. The nets agree on the noise,
which is the variance that each predicts; where data are missing, they disagree on the mean:

    total variance = mean of the nets' variances + variance of the nets' means

``ensemble(net, n)`` and ``ensemble(loss, n)`` train all nets in one step, each as if trained separately. Coverage is the fraction
of 10 000 new points within 2 standard deviations of the mean: 0.954 is correct for normal noise.

    python -m examples.ensemble --epochs 1500 --seed 0 --out out
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

NETS, WIDTH, LR, POINTS = 20, 50, 1e-2, 200
REGIONS = {"left of the gap": (-4.0, -0.5), "in the gap": (-0.5, 1.5), "right of the gap": (1.5, 4.0), "beyond": (4.0, 5.0)}


# Random biases spread the bends over x, and large weights make the nets differ; both were chosen with other seeds.
net = fn.serial(
    fn.Rescale(2.0),
    fn.Linear(1, WIDTH, initializer="torch"),
    fn.Tanh(),
    fn.Linear(WIDTH, WIDTH, initializer=fn.KaimingNormal()),
    fn.Tanh(),
    fn.Linear(WIDTH, 2, initializer=fn.KaimingNormal()),
    fn.Chunk(2, dim=-1),
    fn.parallel(fn.Identity(), fn.Exp()),
)
loss = fn.GaussianNLL()


def truth(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of y at x."""
    return torch.sin(1.5 * x) * (1 + x / 8), 0.05 + 0.2 * torch.sigmoid(2 * x)


def points(rng: Key, count: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Draw points x uniformly, and y with normal noise."""
    at, noise = fn.split(rng)
    x = fn.random.uniform(at, (count,), low, high)
    mean, std = truth(x)
    return x, mean + std * fn.random.normal(noise, (count,))


def predicted(params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return the mean of the nets' means, their spread, and the total standard deviation; and one net's mean and deviation."""
    m, v = (output.squeeze(2) for output in fn.ensemble(net, NETS)(params, x[:, None]))
    spread = m.var(0, correction=0)
    return m.mean(0), spread.sqrt(), (spread + v.mean(0)).sqrt(), (m[0], v[0].sqrt())


def trained(
    net: fn.Layer, loss: fn.Loss, data: tuple[Tensor, Tensor], steps: int, rng: Key, checkpoints: fn.Checkpoints | None = None
) -> tuple[Params, float]:
    """Train with Adam, with all points at each step, and return the params and the seconds."""
    batch = data[0][:, None], data[1][:, None]
    batches, epochs = common.in_epochs(lambda i: batch, steps, 10 if checkpoints else 1)
    how: dict[str, Any] = {"epochs": epochs, "key": rng, "params": net.init(rng), "checkpoints": checkpoints, "progress": False}
    params, _, history = fn.fit(net, loss, fn.Adam(lr=fn.CosineSchedule(LR, steps)), batches, **how)
    return params, sum(history["seconds"])


def covered(params: Params, rng: Key, low: float, high: float) -> list[float]:
    """Return the coverage of all nets and of one, and the mean deviations: the nets' spread, and the total."""
    x, y = points(rng, 10_000, low, high)
    mean, spread, total, (one, std) = predicted(params, x)
    shares = [((y - m).abs() < 2 * s).float().mean() for m, s in ((mean, total), (one, std))]
    return [float(value) for value in (*shares, spread.mean(), total.mean(), truth(x)[1].mean())]


def picture(params: Params, data: tuple[Tensor, Tensor], options: Namespace) -> None:
    """Draw the points, the true mean, and two standard deviations around the predicted one: of the spread, and in total."""
    x = torch.linspace(-5, 5, 500)
    mean, spread, total, _ = predicted(params, x)
    figure, panel = plt.subplots(figsize=(10, 5), layout="constrained")
    for std, alpha, label in ((total, 0.2, "± 2 std, noise included"), (spread, 0.5, "± 2 std of the means")):
        panel.fill_between(x, mean - 2 * std, mean + 2 * std, color="tab:orange", alpha=alpha, lw=0, label=label)
    panel.plot(x, mean, color="tab:red", label=f"mean of {NETS} nets")
    panel.plot(x, truth(x)[0], "--", color="black", lw=1, label="truth")
    panel.plot(*data, ".", color="tab:blue", label="training points")
    panel.set(title="uncertainty of an ensemble", xlabel="x", ylabel="y", xlim=(-5, 5), ylim=(-3, 3))
    panel.legend(loc="upper left", ncols=2)
    common.save(figure, options, "ensemble")


def main(given: list[str] | None = None) -> None:
    """Train, print times and coverage, and draw the predictions of the nets."""
    options = common.arguments(__doc__, given, epochs=1500)
    drawn, first, fresh = fn.split(fn.key(options.seed), 3)
    x, y = points(drawn, POINTS, -4.0, 4.0)
    low, high = REGIONS["in the gap"]
    data = x[(x < low) | (x > high)], y[(x < low) | (x > high)]
    checkpoints = common.checkpoints(options, "ensemble")
    params, together = trained(fn.ensemble(net, NETS), fn.ensemble(loss, NETS), data, options.epochs, first, checkpoints)
    few = max(1, options.epochs // 20)  # a net by itself takes as long at each step
    alone = sum(trained(net, loss, data, few, fn.fold_in(first, i))[1] for i in range(NETS)) / few * options.epochs
    print(f"{NETS} nets, {options.epochs} steps: {together:.1f} s together, {alone:.1f} s one after the other\n")
    print(f"{'':18}coverage  of one net   spread    total    noise")
    for i, (name, region) in enumerate(REGIONS.items()):
        print(f"{name:18}{{:8.3f}}{{:12.3f}}{{:9.3f}}{{:9.3f}}{{:9.3f}}".format(*covered(params, fn.fold_in(fresh, i), *region)))
    picture(params, data, options)
    common.finished(checkpoints)


if __name__ == "__main__":
    main()
