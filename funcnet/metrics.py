"""Metrics: what people read beside the loss, each a function (y, target) -> number of a batch, averaged over its rows.

A metric may have an attribute ``weight_of``, a function of the target: how much a batch counts for in a mean over batches, as a
loss has it. Without one it is the number of rows.
"""

import torch
from torch import Tensor

from funcnet.errors import is_whole, value_error
from funcnet.kernels.tracing import is_plain


def accuracy(y: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the share of predictions that agree with the target, a 0-d tensor.

    The prediction is the class with the largest output. Where y has a single class, it holds logits, and the prediction is
    whether they are above 0: of probabilities, subtract 0.5.

    Args:
        y: (N, classes, ...), or (N, 1, ...) for two classes.
        target: Labels (N, ...), or one-hot or probability rows of the shape of y, of which the largest counts. With one class
            numbers from 0 to 1 of either shape.
        ignore_index: The label that is left out; if no other is left, the share is NaN.

    Raises:
        ValueError: For other shapes, and with one class for targets that are not from 0 to 1.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, -100]))
    tensor(1.)
    """
    _check(y, target, ignore_index)
    if y.shape[1] == 1:
        return _share(*_binary(y, target, ignore_index))
    labels = target.argmax(1) if target.dim() == y.dim() else target
    return _share(y.argmax(1) == labels, labels != ignore_index)


def _share(right: Tensor, counts: Tensor) -> Tensor:
    return ((right & counts).sum() / counts.sum()).to(torch.get_default_dtype())


def _check(y: Tensor, target: Tensor, ignore_index: int) -> None:
    if not isinstance(y, Tensor) or not isinstance(target, Tensor):
        raise value_error("accuracy", "y and target must be tensors", y if not isinstance(y, Tensor) else target)
    if not is_whole(ignore_index):
        raise value_error("accuracy", "ignore_index must be a whole number", repr(ignore_index))
    if y.dim() < 2 or target.shape not in (y.shape, y.shape[:1] + y.shape[2:]) or not y.shape[1] or y.is_complex():
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}"
        raise value_error("accuracy", "y must be (N, classes, ...), and target (N, ...) or (N, classes, ...)", got)


def _binary(y: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return what is right, and what counts, for logits of one class."""
    target = target.reshape(y.shape)
    counts = target != ignore_index
    if is_plain(target) and (counts & ((target < 0) | (target > 1))).any():
        rule = "with one class the target must hold numbers from 0 to 1"
        raise value_error("accuracy", rule, f"numbers from {target.min().item():g} to {target.max().item():g}")
    return (y > 0) == (target > 0.5), counts


def _labels_counted(target: Tensor) -> Tensor | int:
    """Return how many labels there are, without those ignored by default; of rows of probabilities, how many rows."""
    return len(target) if target.is_floating_point() else (target != -100).sum()


accuracy.weight_of = _labels_counted  # type: ignore[attr-defined]
