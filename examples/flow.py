"""Flow: a normalizing flow of affine couplings learns the density of two moons.

The flow maps points to standard normal numbers and adds up its log-determinant on the way. The loss is the negative log density
of the points: the negative log density of the normal numbers, minus the log-determinant. The inverse of the flow turns normal
numbers into new points. The baseline is a normal distribution with the mean and covariance of the training points; the limit is
the true density of the points. All figures are nats per held-out point.

    python -m examples.flow --epochs 40 --seed 0 --out out
"""

import math
from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import make_moons
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, finished, save
from funcnet.contract import Params
from funcnet.random.keys import Key

NOISE, POINTS, BATCH, LR, WIDTH, COUPLINGS = 0.08, 8000, 100, 5e-3, 32, 6
SPREAD = torch.tensor([0.87, 0.5])


def scale_and_shift() -> fn.Layer:
    """Return a layer that maps one half to the log scale, between -1 and 1, and the shift of the other half."""
    return fn.mlp([1, WIDTH, WIDTH, 2], fn.SiLU()) >> fn.Chunk(2) >> fn.parallel(fn.Tanh(), fn.Identity())


net = fn.serial(*[fn.affine_coupling(scale_and_shift(), scale_and_shift())] * COUPLINGS)


def negative_log_density(y: Any) -> Tensor:
    """Return the nats of each point from the output of the flow: ½ |z|² + log 2π - log_det, where z is both halves."""
    half, other, log_det = y
    nats: Tensor = 0.5 * (half**2 + other**2).sum(1) + math.log(2 * math.pi) - log_det
    return nats


@fn.frozen
class NormalNLL(fn.Loss):
    """Mean negative log density of points, from the output of the flow."""

    reduction: str = "batch"

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Any]:
        return negative_log_density(y).mean(), y

    def backward(self, cache: Any, g: Any = 1.0) -> Any:
        half, other, log_det = cache
        c = g / len(log_det)
        return half * c, other * c, torch.full_like(log_det, -1.0) * c


def moons(n: int, rng: Key) -> tuple[Tensor, Tensor]:
    """Return n points on two half circles, with mean about 0 and deviation about 1, and the same points with noise."""
    circles = (torch.tensor(make_moons(n, shuffle=False)[0], dtype=torch.float32) - torch.tensor([0.5, 0.25])) / SPREAD
    return circles, circles + NOISE / SPREAD * fn.random.normal(rng, (n, 2))


def normal_nll(points: Tensor, centers: Tensor, covariance: Tensor) -> Tensor:
    """Return the mean nats of points under a uniform mixture of normal distributions around the centers."""
    normals: Any = torch.distributions.MultivariateNormal(centers, covariance)
    nats: Tensor = math.log(len(centers)) - normals.log_prob(points[:, None]).logsumexp(1).mean()
    return nats


def triple(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return points in the flow's form: two halves, and a log-determinant of 0."""
    return points[:, :1], points[:, 1:], torch.zeros(len(points))


def picture(params: Params, test: Tensor, rng: Key, options: Namespace) -> None:
    """Draw the held-out points, as many points from the flow, and the density."""
    normal = fn.random.normal(rng, tuple(test.shape))
    drawn = torch.cat(net.inverse(params, triple(normal))[:2], 1)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.3), layout="constrained", sharex=True, sharey=True)
    left.scatter(*test.T, s=4, linewidths=0)
    middle.scatter(*drawn.T, s=4, linewidths=0, color="tab:orange")
    axis = torch.linspace(-2.6, 2.6, 250)
    grid = triple(torch.cartesian_prod(axis, axis))
    density = torch.exp(-negative_log_density(net(params, grid))).reshape(250, 250).T.numpy()
    shades = right.imshow(density, extent=(-2.6, 2.6, -2.6, 2.6), origin="lower", cmap="magma")
    figure.colorbar(shades, ax=right, label="density", shrink=0.85)
    for panel, title in ((left, "held-out points"), (middle, "drawn from the flow"), (right, "the flow's density")):
        panel.set(title=title, aspect="equal", xlabel="$x_1$", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    left.set_ylabel("$x_2$")
    save(figure, options, "flow")


def main(given: list[str] | None = None) -> None:
    """Train the flow, print the nats of held-out points, and save the picture."""
    options = arguments(__doc__, given, epochs=40)
    train_key, test_key, fit_key, sample_key = fn.split(fn.key(options.seed), 4)
    (_, train), (circles, test) = moons(POINTS, train_key), moons(POINTS // 8, test_key)
    schedule = fn.WarmupCosineSchedule(LR, POINTS // BATCH, options.epochs * POINTS // BATCH)
    opt = fn.chain(fn.ClipByGlobalNorm(5.0), fn.Adam(schedule))
    loss, data = NormalNLL(), (triple(train), torch.zeros(POINTS))
    kept = checkpoints(options, "flow")
    how = {"epochs": options.epochs, "batch_size": BATCH, "key": fit_key, "checkpoints": kept}
    params, _, history = fn.fit(net, loss, opt, data, **how)
    restored = torch.cat(net.inverse(params, net(params, triple(test)))[:2], 1)
    print(f"parameters          {fn.tree.size(params)}")
    print(f"training            {sum(history['seconds']):.1f} s")
    print(f"normal distribution {normal_nll(test, train.mean(0, keepdim=True), torch.cov(train.T)):.3f} nats per point")
    print(f"flow                {negative_log_density(net(params, triple(test))).mean():.3f} nats per point")
    print(f"true density        {normal_nll(test, circles, torch.diag((NOISE / SPREAD) ** 2)):.3f} nats per point")
    print(f"inverse             {(restored - test).abs().max():.1e} off at most")
    picture(params, test, sample_key, options)
    finished(kept)


if __name__ == "__main__":
    main()
