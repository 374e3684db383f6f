"""Diffusion: a small U-Net learns to draw digits by removing noise, step by step.

A digit x becomes α x + σ ε with normal noise ε, where α² + σ² = 1 and σ grows from 0 to 1 over the time t. The U-Net, one graph
with a skip connection, estimates ε from the noisy digit, the time and the label; the loss is the mean squared error. The learning
rate stays high to the end, and ``Averaged`` keeps an ``EMA`` of the params, over the last 500 steps or so. To draw a digit with
the average, DDIM starts with noise and goes back in time (Song et al. 2021). The baselines are the estimate 0 and the best linear
estimate. A nearest-neighbor classifier, fitted to the training digits, reads the new digits, and held-out digits for comparison.

    python -m examples.diffusion --epochs 60 --seed 0 --out out
"""

import math
from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, digits, finished, montage, save
from funcnet.contract import Params
from funcnet.random.keys import Key

CHANNELS, WIDTH, BATCH, LR, DECAY, STEPS = 24, 64, 32, 5e-3, 0.998, 50


def conv(channels: int, out: int) -> fn.Layer:
    """Return a norm, an activation and a convolution that keeps height and width."""
    return fn.GroupNorm(4, channels) >> fn.SiLU() >> fn.Conv2d(channels, out, 3, padding=1)


def block(channels: int, out: int) -> fn.Layer:
    """Return a residual block of two inputs: an image, and a vector that shifts its channels."""
    return fn.graph(
        *("x", "condition"),
        hidden=(conv(channels, out), "x"),
        shift=(fn.SiLU() >> fn.Linear(WIDTH, out) >> fn.Unflatten(1, (out, 1, 1)), "condition"),
        shifted=(fn.Add(), "hidden", "shift"),
        change=(conv(out, out), "shifted"),
        shortcut=(fn.Conv2d(channels, out, 1), "x"),
        y=(fn.Add(), "change", "shortcut"),
    )


net = fn.graph(
    *("x", "t", "label"),
    time=(fn.Rescale(1000.0) >> fn.SinusoidalEmbedding(WIDTH) >> fn.mlp([WIDTH, WIDTH, WIDTH], fn.SiLU()), "t"),
    digit=(fn.Embedding(10, WIDTH), "label"),
    condition=(fn.Add(), "time", "digit"),
    stem=(fn.Conv2d(1, CHANNELS, 3, padding=1), "x"),
    down=(block(CHANNELS, CHANNELS), "stem", "condition"),
    small=(fn.AvgPool2d(2), "down"),
    middle=(block(CHANNELS, 2 * CHANNELS), "small", "condition"),
    bottom=(block(2 * CHANNELS, 2 * CHANNELS), "middle", "condition"),
    large=(fn.Upsample(scale_factor=2), "bottom"),
    joined=(fn.Concat(1), "large", "down"),
    up=(block(3 * CHANNELS, CHANNELS), "joined", "condition"),
    y=(conv(CHANNELS, 1), "up"),
)
loss = fn.MSE()


def levels(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return α and σ at times t (N,), as factors of images."""
    angle = t[:, None, None, None] * math.pi / 2
    return torch.cos(angle), torch.sin(angle)


def noised(x: Tensor, rng: Key) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a time and noise for each image, and return the noisy images, the times and the noise."""
    of_time, of_noise = fn.split(rng)
    t, noise = fn.random.uniform(of_time, (len(x),)), fn.random.normal(of_noise, tuple(x.shape))
    alpha, sigma = levels(t)
    return alpha * x + sigma * noise, t, noise


def task(batch: Any, rng: Key) -> tuple[Any, Tensor]:
    """Add new noise to a batch of digits and labels; return the input of the net, and the noise to predict."""
    x, labels = batch
    noisy, t, noise = noised(x, rng)
    return (noisy, t, labels), noise


def trained(data: Any, epochs: int, rng: Key, checkpoints: fn.Checkpoints | None = None) -> tuple[Params, Params, fn.History]:
    """Train the U-Net; return its params, their average over the last steps, and the history."""
    opt = fn.Averaged(fn.Adam(fn.WarmupConstantSchedule(LR, len(data[0]) // BATCH)), fn.EMA(DECAY, warmup=True))
    how: dict[str, Any] = {"batch_size": BATCH, "drop_last": True, "transform": task, "checkpoints": checkpoints}
    params, state, history = fn.fit(net, loss, opt, data, epochs=epochs, key=rng, **how)
    return params, opt.eval_params(state, params), history


def drawn(params: Params, labels: Tensor, rng: Key) -> list[Tensor]:
    """Draw an image for each label with DDIM, and return the images at all steps."""
    x = fn.random.normal(rng, (len(labels), 1, 8, 8))
    times, images = torch.linspace(1, 0, STEPS + 1), [x]
    for t, earlier in zip(times[:-1].clamp_max(0.99), times[1:], strict=True):
        (alpha, sigma), (less, more) = levels(t[None]), levels(earlier[None])
        noise = net(params, (x, t.expand(len(x)), labels))
        x = less * ((x - sigma * noise) / alpha).clamp(-1, 1) + more * noise
        images.append(x)
    return images


def linear(x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
    """Return the best linear estimate of the noise: optimal for normally distributed images with x's mean and covariance."""
    (alpha, sigma), mean = levels(t), x.flatten(1).mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(x.flatten(1).T))
    alpha, sigma = alpha[:, :, 0, 0], sigma[:, :, 0, 0]
    factors = sigma / (alpha**2 * variances.clamp_min(0) + sigma**2)
    found: Tensor = (factors * ((noisy.flatten(1) - alpha * mean) @ axes) @ axes.T).view_as(noisy)
    return found


def picture(params: Params, x: Tensor, rng: Key, options: Namespace) -> None:
    """Draw digits turning into noise, noise turning into new digits, and new digits of each label."""
    of_noise, of_way, of_all = fn.split(rng, 3)
    alpha, sigma = levels(torch.linspace(0, 1, 11))
    into = alpha * x[:7, None] + sigma * fn.random.normal(of_noise, (7, 1, 1, 8, 8))
    way = torch.stack(drawn(params, torch.tensor([0, 2, 3, 4, 5, 7, 9]), of_way)[:: STEPS // 10], 1)
    images = torch.stack(drawn(params, torch.arange(10).repeat(7), of_all)[-1].split(10))
    times = [f"{i / 10:.1f}" for i in range(11)]
    figure, panels = plt.subplots(1, 3, figsize=(14, 3.7), layout="constrained", width_ratios=[11, 11, 10])
    for panel, rows, title, label, ticks in (
        (panels[0], into, "held-out digits, noised", "time t", times),
        (panels[1], way, "new digits, denoised from noise", "time t", times[::-1]),
        (panels[2], images, "new digits", "label", range(10)),
    ):
        panel.imshow(montage((rows + 1) / 2), cmap="Greys", vmin=0, vmax=1)
        panel.set(title=title, xlabel=label, yticks=[])
        panel.set_xticks([10 * i + 4.5 for i in range(len(ticks))], ticks)
    save(figure, options, "diffusion")


def main(given: list[str] | None = None) -> None:
    """Train, print the error of the predicted noise for held-out digits and the accuracy on new ones, and save the picture."""
    options = arguments(__doc__, given, epochs=60)
    split_key, fit_key, test_key, sample_key = fn.split(fn.key(options.seed), 4)
    (train, labels), (test, test_labels) = [(2 * x - 1, target) for x, target in digits(split_key)]
    kept = checkpoints(options, "diffusion")
    last, params, history = trained((train, labels), options.epochs, fit_key, kept)
    noisy, t, noise = noised(test.repeat(10, 1, 1, 1), test_key)
    judge = KNeighborsClassifier(1).fit(train.flatten(1).numpy(), labels.numpy())
    asked = torch.arange(10).repeat(30)
    images = drawn(params, asked, test_key)[-1]
    print(f"parameters          {fn.tree.size(params)}")
    print(f"training            {sum(history['seconds']):.1f} s")
    print(f"estimate 0          {loss(torch.zeros_like(noise), noise):.4f} error in the noise")
    print(f"best linear         {loss(linear(train, noisy, t), noise):.4f}")
    seen = noisy, t, test_labels.repeat(10)
    print(f"U-Net               {loss(net(params, seen), noise):.4f}")
    print(f"its last params     {loss(net(last, seen), noise):.4f}")
    print(f"new digits          {judge.score(images.flatten(1).numpy(), asked.numpy()):.3f} of them read as their labels")
    print(f"held-out digits     {judge.score(test.flatten(1).numpy(), test_labels.numpy()):.3f}")
    picture(params, test, sample_key, options)
    finished(kept)


if __name__ == "__main__":
    main()
