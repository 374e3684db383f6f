"""What the small examples share: the digits, the arguments of a command, and saving a picture."""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import funcnet as fn


def digits(rng, test=360):
    """Load scikit-learn's 1797 digits, and return training and test data in an order drawn from ``rng``.

    Each is a pair of images (N, 1, 8, 8) with pixels between 0 and 1 and labels (N,).
    """
    bunch = load_digits()
    images, labels = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(bunch.target)
    train, rest = fn.random.permutation(rng, len(labels)).split([len(labels) - test, test])
    return (images[train], labels[train]), (images[rest], labels[rest])


def arguments(doc, given=None, **counts):
    """Parse the options of an example: each of ``counts`` (``epochs=20``), the seed, and the folder for what it writes.

    The first paragraph of ``doc`` is the description; ``given`` is the command line by default.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"number of {name}")
    parser.add_argument("--seed", type=int, default=0, help="determines data, initial weights, batches and noise")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args(given)
    for name in counts:
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    mpl.use("Agg")
    torch.set_num_threads(1)  # for nets as small as these, threads cost more than they bring
    return options


def save(figure, options, name):
    """Save a figure in the folder of the options as ``name``.png, and print where."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"picture: {path}")


def montage(rows):
    """Lay out rows of digits (N, 1, 8, 8) as one array, with a margin around each."""
    framed = [torch.nn.functional.pad(row[:, 0], (1, 1, 1, 1)) for row in rows]
    return torch.cat([torch.cat([*row], 1) for row in framed]).numpy()
