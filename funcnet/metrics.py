"""Metrics: what people read beside the loss, each a function (y, target) -> number of a batch, averaged over its rows."""

import torch
from torch import Tensor

from funcnet.errors import value_error


def accuracy(y: Tensor, target: Tensor) -> Tensor:
    """Return the share of rows whose largest output stands at the label: mean [argmax y = target], a 0-d tensor.

    ``y`` (N, classes); ``target`` the labels (N,), or one-hot or probability rows (N, classes), of which the largest counts.

    Raises   ``ValueError`` for other shapes.
    """
    if y.dim() != 2 or target.shape not in (y.shape, y.shape[:1]):
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}"
        raise value_error("accuracy", "y must be (N, classes), and target (N,) or (N, classes)", got)
    labels = target if target.dim() == 1 else target.argmax(1)
    return (y.argmax(1) == labels).to(torch.get_default_dtype()).mean()
