"""VAE: a variational autoencoder learns to draw digits from a few numbers.

The encoder, the sampling of latent numbers and the decoder are one graph with two named outputs: the logits of the pixels, and
the mean and log variance of the latent numbers. The loss, the negative evidence lower bound, is the sum of a loss for each
output. A pixel is the number of dark dots among 16; given the latent numbers, it has a binomial distribution. The baseline has no
latent numbers: each pixel is binomial with its mean over the training digits. All figures are nats per held-out digit.

    python -m examples.vae --epochs 100 --seed 0 --out out
"""

from argparse import Namespace

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import funcnet as fn
from examples.common import arguments, checkpoints, digits, finished, montage, save
from funcnet.contract import Params
from funcnet.random.keys import Key

DOTS, LATENT, WIDTH, BATCH, LR = 16, 8, 128, 64, 2e-3

encoder = fn.Flatten() >> fn.mlp([64, WIDTH, WIDTH], fn.SiLU()) >> fn.SiLU()
decoder = fn.mlp([LATENT, WIDTH, WIDTH, 64], fn.SiLU()) >> fn.Unflatten(1, (1, 8, 8))
net = fn.graph(
    "x",
    features=(encoder, "x"),
    moments=(fn.branch(fn.Linear(WIDTH, LATENT), fn.Linear(WIDTH, LATENT)), "features"),
    z=(fn.GaussianSample(), "moments"),
    logits=(decoder, "z"),
    output={"pixels": "logits", "latent": "moments"},
)

pixels = fn.BCEWithLogits("batch")
loss = fn.losses_of(pixels=(DOTS, pixels), latent=fn.GaussianKL("batch"))


def target(images: Tensor) -> dict[str, Tensor | None]:
    """Return the targets of the outputs: the images, and the standard normal distribution, which needs no tensor."""
    return {"pixels": images, "latent": None}


def constant(x: Tensor) -> Tensor:
    """Return the mean over digits of the logarithms of their binomial coefficients."""
    n, k = torch.tensor(DOTS + 1.0), DOTS * x
    return (torch.lgamma(n) - torch.lgamma(k + 1) - torch.lgamma(n - k)).sum() / len(x)


def decoded(params: Params, z: Tensor) -> Tensor:
    """Return the decoder's images for latent numbers."""
    return torch.sigmoid(net["logits"](params["logits"], z))


def between(one: Tensor, other: Tensor, steps: int) -> Tensor:
    """Return points on the straight line from one row of latent numbers to another."""
    return one + torch.linspace(0, 1, steps)[:, None] * (other - one)


def picture(params: Params, images: Tensor, labels: Tensor, rng: Key, options: Namespace) -> None:
    """Draw held-out digits above their reconstructions, digits from the prior, and interpolations between digits."""
    shown = torch.stack([(labels == label).nonzero()[0, 0] for label in (*range(10), 0, 1)])
    y = net.inference()(params, images[shown])
    logits, (mean, _) = y["pixels"], y["latent"]
    parts = {
        "held out (above) and reconstructed (below)": [images[shown], torch.sigmoid(logits)],
        "drawn from the prior": decoded(params, fn.random.normal(rng, (48, LATENT))).split(12),
        "between two held-out digits": [decoded(params, between(mean[i], mean[i + 1], 12)) for i in (2, 4, 6, 8)],
    }
    figure, panels = plt.subplots(3, 1, figsize=(8, 7.6), layout="constrained", height_ratios=[2, 4, 4])
    for panel, (title, rows) in zip(panels, parts.items(), strict=True):
        panel.imshow(montage(rows), cmap="Greys", vmin=0, vmax=1)
        panel.set(title=title, xticks=[], yticks=[])
    save(figure, options, "vae")


def main(given: list[str] | None = None) -> None:
    """Train, print the bound on held-out digits and the baseline, and save the picture."""
    options = arguments(__doc__, given, epochs=100)
    split_key, fit_key, test_key, sample_key = fn.split(fn.key(options.seed), 4)
    (train, _), (test, labels) = digits(split_key)
    opt = fn.Adam(fn.CosineSchedule(LR, options.epochs * -(-len(train) // BATCH)))
    kept = checkpoints(options, "vae")
    how = {"epochs": options.epochs, "batch_size": BATCH, "key": fit_key, "checkpoints": kept}
    params, _, history = fn.fit(net, loss, opt, (train, target(train)), **how)
    y, mean = net(params, test, test_key), train.mean(0).clamp(1e-3, 1 - 1e-3).expand_as(test)
    print(f"parameters       {fn.tree.size(params)}")
    print(f"training         {sum(history['seconds']):.1f} s")
    print(f"mean digit       {DOTS * pixels(mean.logit(), test) - constant(test):.2f} nats per digit")
    print(f"negative bound   {loss(y, target(test)) - constant(test):.2f} nats per digit")
    print(f"  latent part    {loss.parts(y, target(test))['latent'][0]:.2f}")
    picture(params, test, labels, sample_key, options)
    finished(kept)


if __name__ == "__main__":
    main()
