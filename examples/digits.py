"""Digits: a convolutional network learns scikit-learn's 1797 handwritten digits of 8x8 pixels.

A fifth of the digits is set aside for a single test at the end; a tenth of the rest is used for validation during training. The
net, its dropout and the number of epochs were chosen by validation accuracy, with three seeds.

    python -m examples.digits --epochs 40 --seed 0 --out out
"""

import math
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

import funcnet as fn
from examples import common
from funcnet.random.keys import Key

BATCH, LR, WIDTH = 64, 3e-3, 32


def block(channels: int, out: int) -> fn.Layer:
    """Return a convolution that keeps height and width, with batch norm and ReLU."""
    return fn.serial(fn.Conv2d(channels, out, 3, padding="same", bias=False), fn.BatchNorm2d(out), fn.ReLU())


net = fn.serial(
    block(1, WIDTH),
    block(WIDTH, 2 * WIDTH),
    fn.MaxPool2d(2),
    block(2 * WIDTH, 2 * WIDTH),
    fn.Flatten(),
    fn.Dropout(0.3),
    fn.Linear(2 * WIDTH * 4 * 4, 10),
)
loss = fn.CrossEntropy(label_smoothing=0.05)


def digits(rng: Key) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return training, validation and test data, each a pair of images (N, 1, 8, 8) between 0 and 1 and labels (N,)."""
    (images, labels), test = common.digits(rng)
    return (images[:-143], labels[:-143]), (images[-143:], labels[-143:]), test


def trained(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    epochs: int,
    rng: Key,
    checkpoints: fn.Checkpoints | None = None,
) -> fn.Fit:
    """Train with AdamW and a learning rate that decays along a cosine over all steps."""
    steps = epochs * -(-len(train[0]) // BATCH)
    opt = fn.AdamW(lr=fn.CosineSchedule(LR, steps))
    how: dict[str, Any] = {"validation": validation, "metrics": (fn.accuracy,), "checkpoints": checkpoints}
    return fn.fit(net, loss, opt, train, epochs=epochs, batch_size=BATCH, key=rng, **how)


def picture(history: fn.History, labels: Tensor, said: Tensor, images: Tensor) -> Figure:
    """Draw the learning curves, the confusion matrix, and the misread digits."""
    figure = plt.figure(figsize=(13.5, 4.2), layout="constrained")
    left, others = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 2)).flat
    history.plot(["loss", "validation_loss"], left)
    middle, right = others.subplots(1, 2)
    counts = fn.ConfusionMatrix(num_classes=10)(said, labels)
    middle.imshow(counts.clamp_max(5).numpy(), cmap="Blues")
    for row, column in counts.nonzero().tolist():
        middle.text(column, row, int(counts[row, column]), ha="center", va="center", color="white" if row == column else "black")
    middle.set(title="test digits", xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10))
    wrong = (labels != said).nonzero().flatten()
    right.axis("off")
    right.set_title(f"{len(wrong)} of {len(labels)} misread")
    shown = wrong[:6].tolist()
    columns = math.ceil(math.sqrt(len(shown)))
    for i, row in enumerate(shown):
        width, height = 1 / columns, 1 / math.ceil(len(shown) / columns)
        panel = right.inset_axes((i % columns * width, 1 - (i // columns + 1) * height, 0.9 * width, 0.8 * height))
        panel.imshow(images[row, 0].numpy(), cmap="Greys")
        panel.set(title=f"{int(labels[row])}, read as {int(said[row])}", xticks=[], yticks=[])
    return figure


def main(given: list[str] | None = None) -> None:
    """Train, evaluate on the test digits, and save the picture."""
    options = common.arguments(__doc__, given, epochs=40)
    split_key, fit_key = fn.split(fn.key(options.seed))
    train, validation, (images, labels) = digits(split_key)
    checkpoints = common.checkpoints(options, "digits")
    params, _, history = trained(train, validation, options.epochs, fit_key, checkpoints)
    y = net.inference()(params, images)
    judged = fn.metrics_of(fn.Accuracy(), fn.F1(), fn.CalibrationError(n_bins=10))(y, labels)
    print(f"parameters          {fn.tree.size(params)}")
    print(f"training            {sum(history['seconds']):.1f} s, {options.epochs} epochs")
    print(f"training loss       {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    print(f"validation accuracy {history['validation_accuracy'][-1]:.4f}")
    print(f"test accuracy       {judged['accuracy']:.4f}")
    print(f"test F1             {judged['f1']:.4f}, macro average")
    print(f"calibration error   {judged['calibration_error']:.4f}")
    common.save(picture(history, labels, y.argmax(1), images), options, "digits")
    common.finished(checkpoints)


if __name__ == "__main__":
    main()
