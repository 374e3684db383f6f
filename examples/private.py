"""Private: a net learns digits with differential privacy, so that the trained params reveal little about any single digit.

At each step a digit takes part with probability q. Its gradient is clipped to the norm C, and normal noise with std σC hides
which gradients were summed (DP-SGD, Abadi et al. 2016). ``clipped_grads`` stores no gradient of a single digit, and
``AddPrivacyNoise`` is a part of the optimizer:

    wᵢ = min(1, C / ‖gᵢ‖)      grads = (Σ wᵢ gᵢ + σC noise) / qN

T steps are (ε, δ)-private for any whole α > 1 (Mironov et al. 2019, section 3.3; Mironov 2017, proposition 3), with

    ε = (T ln A + ln 1/δ) / (α - 1)      A = Σ (α over k) (1 - q)^(α-k) qᵏ exp((k² - k) / 2σ²) over k = 0 ... α

Net, q, C and rate were chosen on a part of the training digits, which ε does not include; in practice, tuning costs privacy too.

    python -m examples.private --epochs 30 --seed 0 --out out
"""

import math
from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.random.keys import Key

Q, CLIP, LR, DELTA, NOISE = 0.25, 1.0, 0.25, 1e-4, (0.0, 2.0, 4.0, 8.0)

net = fn.serial(fn.Flatten(), fn.Rescale(2.0, -0.6), fn.Linear(64, 64), fn.Tanh(), fn.Linear(64, 10))
loss = fn.CrossEntropy()


def epsilon(steps: int, sigma: float, q: float = Q, delta: float = DELTA) -> float:
    """Return the least ε over the orders α from 2 to 256; without noise there is no bound."""
    if sigma == 0:
        return math.inf
    return min((steps * log_moment(a, sigma, q) + math.log(1 / delta)) / (a - 1) for a in range(2, 257))


def log_moment(a: int, sigma: float, q: float) -> float:
    """Return ln A of order a."""
    k = torch.arange(a + 1, dtype=torch.float64)
    binomial = math.lgamma(a + 1) - torch.lgamma(k + 1) - torch.lgamma(a - k + 1)
    terms = binomial + (a - k) * math.log1p(-q) + k * math.log(q) + (k * k - k) / (2 * sigma**2)
    return float(torch.logsumexp(terms, 0))


def method(sigma: float, batch_size: float, rng: Key) -> tuple[Any, fn.Optimizer]:
    """Return the function that computes clipped gradients, and the optimizer that adds the noise."""
    noise = fn.AddPrivacyNoise(sigma, CLIP, batch_size, seed=int(rng))
    return fn.clipped_grads(net, loss, CLIP, batch_size), fn.chain(noise, fn.SGD(lr=LR, momentum=0.9))


def trained(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], sigma: float, epochs: int, rng: Key) -> list[Any]:
    """Train with one noise level, and return ε and the accuracy on ``test`` after each epoch."""
    images, labels = train
    first, draws, noise = fn.split(rng, 3)
    grads_of, opt = method(sigma, Q * len(labels), noise)
    params = net.init(first)
    state, curve, steps = opt.init(params), [], round(1 / Q)
    with torch.inference_mode():
        for i in range(epochs * steps):
            rows = fn.random.bernoulli(fn.fold_in(draws, i), labels.shape, Q).nonzero().flatten()
            _, grads = grads_of(params, images[rows], labels[rows])
            params, state = opt.update(grads, state, params)
            if (i + 1) % steps == 0:
                curve.append((epsilon(i + 1, sigma), float(fn.accuracy(net(params, test[0]), test[1]))))
    return curve


def picture(curves: dict[Any, Any], options: Namespace) -> None:
    """Draw accuracy against ε for each noise level; without noise there is only the accuracy."""
    figure, panel = plt.subplots(figsize=(8, 5), layout="constrained")
    for i, (sigma, curve) in enumerate(curves.items()):
        spent, right = zip(*curve, strict=True)
        if sigma:
            panel.plot(spent, right, "o-", ms=4, color=plt.cm.viridis(0.3 * i - 0.2), label=f"noise σ = {sigma:g}")
        else:
            panel.axhline(right[-1], color="black", ls="--", lw=1, label="without noise, not private")
    panel.set(title="privacy spent and accuracy reached, epoch by epoch", ylabel="test accuracy")
    panel.set_xlabel(f"privacy spent: ε at δ = {DELTA:g}")
    panel.set(xscale="log", ylim=(None, 1), xticks=(0.25, 0.5, 1, 2, 4, 8), xticklabels=("¼", "½", "1", "2", "4", "8"))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right")
    common.save(figure, options, "private")


def main(given: list[str] | None = None) -> None:
    """Train with each noise level, print ε and accuracy, and draw accuracy against ε."""
    options = common.arguments(__doc__, given, resumable=False, epochs=30)
    split, fit = fn.split(fn.key(options.seed))
    train, test = common.digits(split)
    curves = {sigma: trained(train, test, sigma, options.epochs, fit) for sigma in NOISE}
    print(f"{len(train[1])} digits, each in {options.epochs} of {round(options.epochs / Q)} steps on average; δ = {DELTA:g}\n")
    print("noise σ        ε   test accuracy")
    for sigma, curve in curves.items():
        print(f"{sigma:7g}  {curve[-1][0]:7.2f}   {curve[-1][1]:13.4f}")
    picture(curves, options)


if __name__ == "__main__":
    main()
