"""Helpers of the examples: the digits, command-line options, checkpoints, and saving a picture."""

import argparse
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

import funcnet as fn
from funcnet.random.keys import Key

Batch = tuple[Any, Any]
"""x and target."""


def digits(rng: Key, test: int = 360) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Load scikit-learn's 1797 digits, and return training and test data in an order drawn from ``rng``.

    Each is a pair of images (N, 1, 8, 8) with pixels between 0 and 1 and labels (N,).
    """
    bunch: Any = load_digits()
    images, labels = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(bunch.target)
    train, rest = fn.random.permutation(rng, len(labels)).split([len(labels) - test, test])
    return (images[train], labels[train]), (images[rest], labels[rest])


def arguments(
    doc: str | None,
    given: list[str] | None = None,
    others: dict[str, tuple[Any, str]] | None = None,
    threads: int | None = 1,
    resumable: bool = True,
    **counts: Any,
) -> Namespace:
    """Parse the options of an example: each of ``counts`` (``epochs=20``), the seed, and the output folder.

    The first paragraph of ``doc`` is the description; ``given`` defaults to the command line. A count may have its own help:
    ``batch=(32, "number of rows of a step")``. ``others`` do not change the training: they are numbers, or lists of choices that
    begin with the default, each with its help: ``{"sample": (600, "number of characters to write")}``.
    ``threads`` is 1, because more threads slow down nets as small as these, or ``None`` for torch's default. ``resumable`` says
    whether the training is saved in ``checkpoints``, which ``--fresh`` deletes.
    """
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, count in counts.items():
        default, words = count if isinstance(count, tuple) else (count, f"number of {name}")
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    parser.add_argument("--seed", type=int, default=0, help="determines data, initial weights, batches and noise")
    for name, (default, words) in (others or {}).items():
        kind = {"choices": default, "default": default[0]} if isinstance(default, tuple) else {"type": int, "default": default}
        parser.add_argument(f"--{name}", help=words, **kind)
    parser.add_argument("--out", type=Path, default=Path("out"), help="output folder")
    if resumable:
        parser.add_argument("--fresh", action="store_true", help="start again instead of continuing an interrupted training")
    options = parser.parse_args(given)
    for name in counts:
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    options.training = "-".join(f"{name}-{getattr(options, name)}" for name in (*counts, "seed"))
    mpl.use("Agg")
    torch.set_num_threads(threads or torch.get_num_threads())
    return options


def checkpoints(options: Namespace, name: str, every: int | None = None) -> fn.Checkpoints:
    """Return the checkpoints of a training: a folder for each example, number of epochs and seed.

    The same command continues an interrupted training, which ends with the same params, bit for bit. ``finished`` deletes the
    checkpoints, so that the next call starts a new training; ``--fresh`` deletes them before the training.

    Args:
        options: The options of the command.
        name: Name of the example.
        every: Number of steps between checkpoints within an epoch.
    """
    kept = fn.Checkpoints(options.out / "checkpoints" / f"{name}-{options.training}", every=every)
    if options.fresh and kept.folder.exists():
        finished(kept)
    if kept.steps():
        print(f"continuing the training in {kept.folder}; --fresh starts again")
    return kept


def finished(kept: fn.Checkpoints) -> None:
    """Delete the checkpoints of a training, and the common folder if no other training has any."""
    with kept.locked():  # raises an error while another process trains there
        shutil.rmtree(kept.folder)
    with suppress(OSError):  # other trainings have checkpoints
        kept.folder.parent.rmdir()


def in_epochs(batch_of: Callable[[int], Batch], steps: int, epochs: int = 10) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """Return data for ``fit`` that is generated step by step, as a function of the epoch, and the number of epochs.

    ``batch_of`` returns the batch of a step, counted from 1. The epochs have equal sizes; the last one may be smaller.
    """
    size = max(1, steps // epochs)

    def batches(epoch: int) -> Iterator[Batch]:
        for i in range(epoch * size, min((epoch + 1) * size, steps)):
            yield batch_of(i + 1)

    return batches, -(-steps // size)


def save(figure: Figure, options: Namespace, name: str) -> None:
    """Save a figure in the folder of the options as ``name``.png, and print its path."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"picture: {path}")


def montage(rows: Iterable[Tensor]) -> Any:
    """Lay out rows of digits (N, 1, 8, 8) as one array, with a margin around each."""
    framed = [torch.nn.functional.pad(row[:, 0], (1, 1, 1, 1)) for row in rows]
    return torch.cat([torch.cat([*row], 1) for row in framed]).numpy()
