"""How metrics read y and target: as predicted and true classes, or as scores and labels, with a row for each prediction.

The batch and the axes after the classes are flattened to rows. Wrong shapes raise ``ValueError``, and in eager mode so do labels
out of range, and NaN, which has no order.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcnet.errors import value_error
from funcnet.kernels.limits import has_nan
from funcnet.kernels.tracing import is_plain


class Classes(NamedTuple):
    """Predicted and true classes (rows,), which rows count, and the number of classes."""

    predicted: Tensor
    true: Tensor
    counted: Tensor
    classes: int


class Columns(NamedTuple):
    """Scores or predictions (rows, labels), whether each label is true, and which entries count."""

    y: Tensor
    true: Tensor
    counted: Tensor


def classes_of(
    who: Any, y: Any, target: Any, ignore_index: int = -100, threshold: float = 0.0, num_classes: int | None = None
) -> Classes:
    """Read the classes of the largest outputs; for a single column, whether it is above ``threshold``; integers are classes."""
    y, target = scores(who, y, target, ignore_index, floating=False)
    if not y.is_floating_point():
        return _predicted(who, y, target, ignore_index, num_classes)
    if y.shape[1] == 1:
        of = columns_of(who, y, target, ignore_index)
        require_classes(who, 2, num_classes)
        return Classes((of.y > threshold).long().flatten(), of.true.long().flatten(), of.counted.flatten(), 2)
    require_classes(who, y.shape[1], num_classes)
    true, counted = labels_of(who, y, target, ignore_index)
    return Classes(y.argmax(1).flatten(), true.flatten(), counted.flatten(), y.shape[1])


def require_classes(who: Any, classes: int, num_classes: int | None) -> None:
    """Raise ``ValueError`` if y does not have ``num_classes`` classes."""
    if num_classes not in (None, classes):
        raise value_error(who, f"y must have num_classes={num_classes} classes", f"{classes}")


def scores(who: Any, y: Any, target: Any, ignore_index: int, *, floating: bool = True) -> tuple[Tensor, Tensor]:
    """Return y as (N, classes, ...) and target, detached; a vector y becomes one column, an integer y stays the same."""
    y, target = dense(who, y, target)
    if y.is_complex() or (floating and not y.is_floating_point()):
        raise value_error(who, "y must be a floating tensor", y)
    if not y.is_floating_point():
        return y, target
    y = y.unsqueeze(1) if y.dim() == 1 else y
    if y.dim() == 0 or not y.shape[1] or target.shape not in (y.shape, y.shape[:1] + y.shape[2:]):
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}"
        raise value_error(who, "y must be (N, classes, ...), and target (N, ...) or (N, classes, ...)", got)
    require_no_nan(who, y, target, ignore_index)
    return y, target


def dense(who: Any, y: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Return y and target, detached; raise ``ValueError`` unless both are dense tensors."""
    for one in (y, target):
        if not isinstance(one, Tensor):
            raise value_error(who, "y and target must be tensors", one)
        if one.is_nested or one.layout is not torch.strided:
            raise value_error(who, "y and target must be dense tensors", one)
    return y.detach(), target.detach()


def require_no_nan(who: Any, y: Tensor, target: Tensor, ignore_index: int) -> None:
    """Raise ``ValueError`` if outputs are NaN, except in ignored rows or if values cannot be read."""
    if is_plain(y) and has_nan(y):
        counted = target.double() != ignore_index  # uint8 compares with -100 as with 156
        bad = y.isnan() & (counted if target.dim() == y.dim() else counted.unsqueeze(1))
        if bad.any():
            raise value_error(who, "y must not hold NaN", f"{int(bad.sum())} of {y.numel()} numbers NaN")


def labels_of(who: Any, y: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the labels (N, ...) of y (N, classes, ...), 0 where they are ignored, and which of them count."""
    if target.dim() == y.dim():
        if target.is_floating_point():
            require_no_nan(who, target, target, ignore_index)
        target = target.to(torch.uint8).argmax(1) if target.dtype is torch.bool else target.argmax(1)
    return _in_range(who, target, y.shape[1], ignore_index)


def _in_range(who: Any, labels: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    if labels.is_floating_point() or labels.is_complex():
        raise value_error(who, "labels must be integers", labels)
    labels = labels.long()  # uint8 compares with -100 as with 156
    counted = labels != ignore_index
    odd = counted & ((labels < 0) | (labels >= classes))
    if is_plain(labels) and odd.any():
        rule = f"every label must be from 0 to {classes - 1} or ignore_index={ignore_index}"
        raise value_error(who, rule, str(labels[odd][0].item()))
    return torch.where(counted, labels, 0), counted


def _predicted(who: Any, y: Tensor, target: Tensor, ignore_index: int, num_classes: int | None) -> Classes:
    """Read an integer y as classes; its values in ignored rows do not matter."""
    if y.shape != target.shape:
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}"
        raise value_error(who, "an integer y holds predicted classes, and must have the shape of target", got)
    classes = 2 if y.dtype is torch.bool and num_classes is None else num_classes
    if classes is None:
        raise value_error(who, "num_classes must be given for predicted classes", "num_classes=None")
    true, counted = _in_range(who, target, classes, ignore_index)
    predicted, _ = _in_range(who, torch.where(counted, y.long(), 0), classes, -1 - classes)
    return Classes(predicted.flatten(), true.flatten(), counted.flatten(), classes)


def columns_of(who: Any, y: Tensor, target: Tensor, ignore_index: int) -> Columns:
    """Read y and a target of its shape, with numbers from 0 to 1, as columns; for a single column, target may lack its axis."""
    if y.shape[1] != 1 and target.shape != y.shape:
        got = f"shapes {tuple(y.shape)} and {tuple(target.shape)}"
        raise value_error(who, "y and target must have the same shape (N, labels, ...)", got)
    target = target.reshape(y.shape) if target.is_floating_point() else target.reshape(y.shape).long()
    counted = target != ignore_index
    if is_plain(target) and (counted & ~((target >= 0) & (target <= 1))).any():
        rule = "with one class the target must hold numbers from 0 to 1" if y.shape[1] == 1 else "target must be from 0 to 1"
        raise value_error(who, rule, f"numbers from {target.min().item():g} to {target.max().item():g}")
    return Columns(as_rows(y), as_rows(target) > 0.5, as_rows(counted))


def as_rows(x: Tensor) -> Tensor:
    """Reshape (N, classes, ...) to (rows, classes)."""
    return x.movedim(1, -1).flatten(0, -2) if x.dim() != 2 else x


def one_against_the_rest(who: Any, y: Tensor, target: Tensor, ignore_index: int, scaled: Callable[[Tensor], Tensor]) -> Columns:
    """Read labels of several classes as a column for each class, which is true in rows of that class."""
    true, counted = labels_of(who, y, target, ignore_index)
    hot = true.flatten().unsqueeze(1) == torch.arange(y.shape[1], device=y.device)
    return Columns(as_rows(scaled(y)), hot, counted.flatten().unsqueeze(1).expand_as(hot))
