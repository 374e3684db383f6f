"""The base of losses of class labels: ``CrossEntropy``, ``NLL`` and ``LinearCrossEntropy``.

    ℓ = -w log p    at each row's label: p the probabilities of the classes, w their weights

Rows whose label is ``ignore_index`` have no term. The classes are in axis 1 of y, or in axis 0 of a vector; labels (N, ...) or ()
are integers. The reduction sets c to 1 for "sum" and "none", 1/N for "batch", and 1 / Σ w over the rows for "mean".
"""

import re
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import value_error, whole_number
from funcnet.kernels import losses as kernels
from funcnet.losses.loss import Loss, reductions, require_floating, weights
from funcnet.value import frozen


@frozen
class LabelLoss(Loss):
    """A loss with one term for each label; a subclass defines ``forward`` and ``backward``.

    Raises:
        ValueError: From the constructor if a weight is negative or not finite; from a call if the number of weights differs from
            the number of classes, if the labels are not integers of the right shape, or, on the CPU, if a label is neither a
            class nor ``ignore_index``. On other devices torch's assertion fails.
    """

    weight: tuple[float, ...] | None = field(default=None, validator=weights)
    ignore_index: int = field(default=-100, validator=whole_number)
    reduction: str = field(default="mean", validator=reductions)

    def weight_of(self, target: Tensor) -> float | Tensor:
        if self.reduction != "mean":
            return target.shape[0] if target.dim() else 1
        return (target.long() != self.ignore_index).sum() if self.weight is None else self._class_weights(target).sum()

    def term_weights(self, target: Tensor) -> Tensor | None:
        return None if target.is_floating_point() else self._class_weights(target)

    def _class_weights(self, labels: Tensor) -> Tensor:
        """Return the weight of each label, 0 for ignored ones."""
        labels = labels.long()  # as uint8, -100 is 156
        counts = labels != self.ignore_index
        if self.weight is None:
            return counts.double()
        w = torch.tensor(self.weight, dtype=torch.float64, device=labels.device)
        return torch.where(counts, w[labels * counts], 0.0)

    def weight_tensor(self, logp: Tensor) -> Tensor | None:
        """Return ``weight`` as a tensor."""
        return None if self.weight is None else torch.tensor(self.weight, dtype=logp.dtype, device=logp.device)

    def at_labels(self, logp: Tensor, labels: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return -w log p at the labels, for each row or as a sum, and the sum of w."""
        try:
            return kernels.nll(logp, labels, w, 0 if self.reduction == "none" else 2, self.ignore_index)
        except (IndexError, RuntimeError) as error:
            raise self._explain_kernel_error(logp, error) from None

    def at_labels_grad(self, logp: Tensor, labels: Any, w: Tensor | None, c: Tensor, gc: Tensor) -> Tensor:
        """Return the gradient of log p: -gc w at the labels, 0 elsewhere."""
        if self.reduction == "none":
            return kernels.nll_backward(gc.expand(labels.shape), logp, labels, w, 0, self.ignore_index, c)
        return kernels.nll_backward(gc, logp, labels, w, 2, self.ignore_index, c)

    def scale_of(self, logp: Tensor, total: Tensor | None) -> Tensor:
        """Return c. It is finite even if the weights sum to 0, except for an empty batch."""
        if self.reduction == "mean" and total is not None:
            return total.clamp_min(torch.finfo(logp.dtype).tiny if logp.numel() else 0).reciprocal()
        if self.reduction == "mean":
            n = logp.numel() // (logp.shape[class_axis(logp)] or 1)
        else:
            n = samples(logp) if self.reduction == "batch" else 1
        return logp.new_full((), 1 / n if n else torch.nan)

    def scaled(self, value: Tensor, c: Tensor, kind: Tensor | None) -> Tensor:
        """Return the reduced value in the dtype of y, from the terms or their sum."""
        return rounded_as(value if self.reduction in ("none", "sum") else value * c, kind)

    def labels_of(self, y: Tensor, target: Tensor) -> Tensor:
        """Return the labels as int64, after checking that y, the labels and the weights fit together."""
        require_floating(self, y, target)
        self.require_classes(y)
        axis = class_axis(y)
        shape = y.shape[:axis] + y.shape[axis + 1 :]
        if target.shape != shape or target.is_floating_point() or target.is_complex():
            of_y = f"the shape of y {tuple(y.shape)} without axis {axis}, the classes"
            if axis == 1 and y.dim() > 2 and target.shape == y.shape[:-1]:
                of_y += "; if the classes are in the last axis, end the net with Transpose(1, -1)"
            raise value_error(self, f"labels must be integers of shape {tuple(shape)}, {of_y}", target)
        return target if target.dtype == torch.int64 else target.long()

    def require_classes(self, y: Tensor) -> None:
        """Raise if y has no axis of classes, or if the number of classes differs from the number of weights."""
        if y.dim() == 0:
            raise value_error(self, "y must have an axis of classes", y)
        classes = y.shape[class_axis(y)]
        if self.weight and len(self.weight) != classes:
            rule = f"weight must have one number for each of the {classes} classes"
            raise value_error(self, rule, f"{len(self.weight)} numbers")

    def _explain_kernel_error(self, logp: Tensor, error: Exception) -> Exception:
        """Return an error that names the label if the kernel's error does, else the kernel's error."""
        found = re.search(r"(?:Target|index) (-?\d+) is out of bounds", str(error))
        if not found:
            return error
        rule = f"every label must be from 0 to {logp.shape[class_axis(logp)] - 1}, or ignore_index={self.ignore_index}"
        return value_error(self, rule, found[1])


def rounded_as(x: Tensor, kind: Tensor | None) -> Tensor:
    """Round to the dtype of y if it is half precision; else ``kind`` is ``None``."""
    return x if kind is None else x.to(kind.dtype)


def samples(y: Tensor) -> int:
    """Return the length of the batch axis; 1 for a vector."""
    return y.shape[0] if y.dim() > 1 else 1


def class_axis(y: Tensor) -> int:
    """Return the axis of classes."""
    return 1 if y.dim() > 1 else 0


def over_classes(rows: Tensor, logp: Tensor) -> Tensor:
    """Insert the axis of classes into a tensor of one number per row; a scalar for all rows is unchanged."""
    return rows.unsqueeze(class_axis(logp)) if rows.dim() or logp.dim() == 1 else rows


def by_class(w: Tensor, like: Tensor) -> Tensor:
    """Reshape a tensor of one number per class to broadcast over ``like``."""
    return w.reshape(-1, *[1] * (like.dim() - class_axis(like) - 1))
