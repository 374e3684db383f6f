"""Siamese: a net learns from pairs whether two handwritten digits are the same, and is tested on digits that it has never seen.

One encoder, with one set of params, turns both images into vectors; a logistic regression classifies their cosine.
``shared`` applies the encoder to both images, draws different dropout for each and sums the gradients. The net is trained on
pairs of the digits 0 to 6. It is tested on pairs of other images of these digits, and on pairs of 7, 8 and 9, which are new to
it. Half of all pairs show the same digit. Width, dropout and epochs were chosen on pairs of two digits left out of training.

    python -m examples.siamese --epochs 10 --seed 0 --out out
"""

from argparse import Namespace
from typing import Any

import torch
from matplotlib import pyplot as plt
from sklearn.manifold import TSNE
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.contract import Params
from funcnet.random.keys import Key

SEEN, PAIRS, BATCH, LR, WIDTH = 7, 8192, 128, 2e-3, 32

encoder = fn.serial(
    fn.Conv2d(1, WIDTH, 3, padding="same"),
    fn.ReLU(),
    fn.MaxPool2d(2),
    fn.Conv2d(WIDTH, 2 * WIDTH, 3, padding="same"),
    fn.ReLU(),
    fn.Flatten(),
    fn.Dropout(0.5),
    fn.Linear(2 * WIDTH * 4 * 4, 32),
)
cosine = fn.serial(fn.shared(encoder), fn.CosineSimilarity(), fn.Rescale(5.0), fn.Unsqueeze(1))
net = fn.serial(cosine, fn.Linear(1, 1, initializer=fn.Ones()), fn.Flatten(0))  # similar images are "same" from the start
loss = fn.BCEWithLogits()


def pairs(images: Tensor, labels: Tensor, rng: Key, count: int = PAIRS) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Draw pairs of images, half of them of the same digit, with target 1."""
    one, other = fn.random.randint(rng, (2, 10 * count), 0, len(labels))
    same = labels[one] == labels[other]
    rows = torch.cat((same.nonzero()[: count // 2], (~same).nonzero()[: count // 2])).flatten()
    return (images[one[rows]], images[other[rows]]), same[rows].float()


def only(data: tuple[Tensor, Tensor], digits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images and labels of some digits."""
    rows = torch.isin(data[1], digits)
    return data[0][rows], data[1][rows]


def agreement(y: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of correctly classified pairs; a logit above 0 means "same"."""
    return ((y > 0) == (target > 0.5)).float().mean()


def picture(params: Params, test: tuple[Tensor, Tensor], new_pairs: Any, options: Namespace) -> None:
    """Draw the vectors of the test digits in two dimensions, and the cosines of pairs of new digits."""
    images, labels = test
    vectors = encoder.inference()(params[0][0], images)
    place = TSNE(metric="cosine", init="pca", random_state=options.seed).fit_transform(vectors.numpy())
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for digit in range(10):
        style = {"marker": "o", "s": 16, "alpha": 0.5} if digit < SEEN else {"marker": "^", "s": 36, "edgecolors": "black"}
        left.scatter(*place[(labels == digit).numpy()].T, color=plt.cm.tab10(digit), lw=0.6, label=digit, **style)
    left.set(title="t-SNE of the vectors of test digits", xticks=[], yticks=[])
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, title="digit\n(▲ new)")
    x, target = new_pairs
    cosines = cosine.inference()(params[0], x).flatten() / 5
    for same, word in ((True, "same digit"), (False, "different digits")):
        right.hist(cosines[(target > 0.5) == same].numpy(), bins=40, range=(-1, 1), alpha=0.6, label=word)
    slope, shift = params[1]["weight"].item() * 5, params[1]["bias"].item()
    right.axvline(-shift / slope, color="black", ls="--", lw=1, label="learned threshold")
    right.set(title="pairs of the new digits 7, 8 and 9", xlabel="cosine of the two vectors", ylabel="pairs", xlim=(-1, 1))
    right.legend(loc="upper left")
    common.save(figure, options, "siamese")


def main(given: list[str] | None = None) -> None:
    """Train, classify pairs of seen and of new digits, and save the picture."""
    options = common.arguments(__doc__, given, epochs=10)
    split, drawn, held, fit = fn.split(fn.key(options.seed), 4)
    train, test = common.digits(split)
    seen, new = torch.arange(SEEN), torch.arange(SEEN, 10)
    data = pairs(*only(train, seen), drawn)
    checkpoints = common.checkpoints(options, "siamese")
    how = {"epochs": options.epochs, "batch_size": BATCH, "key": fit, "checkpoints": checkpoints}
    params, _, history = fn.fit(net, loss, fn.AdamW(lr=LR), data, **how)
    new_pairs = pairs(*only(test, new), fn.fold_in(held, 1))
    tests = {"0 to 6, other images": pairs(*only(test, seen), held), "7, 8 and 9, never seen": new_pairs}
    print(f"parameters                       {fn.tree.size(params)}")
    print(f"training loss                    {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    for name, part in tests.items():
        found = fn.evaluate(net, params, part, (agreement,))["agreement"]
        print(f"pairs of {name:24}{found:.4f} right")
    picture(params, test, new_pairs, options)
    common.finished(checkpoints)


if __name__ == "__main__":
    main()
