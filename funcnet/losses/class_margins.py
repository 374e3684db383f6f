"""Margin losses of several classes. t is a label, h(z) = max(0, z), and [...] is 1 where that holds, else 0.

    MultiMargin        ℓ = Σ w_t h(zᵢ)ᵖ / classes, over i ≠ t     zᵢ = margin - y_t + yᵢ
                       ∂ℓ/∂y = s, and -Σ sᵢ at t                  sᵢ = w_t p h(zᵢ)ᵖ⁻¹ [zᵢ > 0] / classes
    MulticlassHinge    ℓ = h(max zᵢ), over i ≠ t
                       ∂ℓ/∂y = s, and -Σ sᵢ at t                  sᵢ = 1 / k where zᵢ is the largest of k equal ones, else 0
    MultiLabelMargin   ℓ = Σ h(z_ti) / classes, over labels t and classes i that are no label     z_ti = 1 - y_t + yᵢ
                       ∂ℓ/∂y = Σ_t s_ti, and -Σᵢ s_ti at t        s_ti = [z_ti > 0] / classes

y is (N, classes) or (classes,), with one term ℓ for each row. The slopes at the kinks, z = 0, are torch.nn's: 0 in MultiMargin
and in MultiLabelMargin. In MulticlassHinge 0 is one of the k equal numbers, so that its kink is halfway, as in optax.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import is_whole, number, valid_if, value_error
from funcnet.kernels import margin_losses as kernels
from funcnet.losses.loss import Factor, reductions, weights
from funcnet.losses.terms import TermLoss, label_error, numbers_in, over_classes, require_labels, require_rows, row_count
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor | None]  # z, the labels with an axis of classes, and the rows' weights


def _margins(loss: Any, y: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """Return margin - y_t + yᵢ, 0 for the label itself, and the labels with an axis of classes."""
    y = require_rows(loss, y)
    at = require_labels(loss, y, target, y.shape[:-1]).unsqueeze(-1)
    try:
        return (loss.margin - y.gather(-1, at) + y).scatter(-1, at, 0.0), at
    except (IndexError, RuntimeError) as error:
        raise label_error(loss, y.shape[-1], error) from None


def _with_label(s: Tensor, at: Tensor) -> Tensor:
    """Return the slopes s, and at each label minus their sum."""
    return s.scatter(-1, at, -s.sum(-1, keepdim=True))


@frozen
class MultiMargin(TermLoss):
    """Margin loss of classes, where every class within the margin costs: ``torch.nn.MultiMarginLoss``.

    Args:
        p: 1, or 2 for squares.
        margin: By how much the label's score must exceed each other score to cost nothing.
        weight: A factor for the rows of each class. The mean divides by the number of rows all the same.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``; a term is a row.

    Shape:
        y (N, classes) or (classes,); target labels, integers (N,) or ().

    Cache:
        z, in float32 at least, the labels, and the weight of each row or ``None``.

    Raises:
        ValueError: For an unknown ``reduction``, a ``p`` other than 1 and 2, a ``margin`` that is not a finite number, weights
            that are negative, not finite, or too many or few, a y without classes or that is not floating, a target without
            integers of its shape, and on the CPU a label out of range.

    Source:
        ``torch.nn.MultiMarginLoss``'s formula.

    >>> MultiMargin()(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([3]))
    tensor(0.3250)
    """

    p: int = field(default=1, validator=valid_if(lambda p: is_whole(p) and p in (1, 2), "1 or 2"))
    margin: float = field(default=1.0, validator=number())
    weight: tuple[float, ...] | None = field(default=None, validator=weights)
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        z, at = _margins(self, y, target)
        return z, at, None if self.weight is None else self._row_weights(z, at)

    def loss(self, kept: Kept) -> Tensor:
        z, _, w = kept
        h = torch.relu(z)
        terms = (h if self.p == 1 else h * h).sum(-1) / z.shape[-1]
        return terms if w is None else terms * w

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        z, at, w = kept
        g = over_classes(g if w is None else g * w)
        s = (z > 0).to(z.dtype) if self.p == 1 else 2 * torch.relu(z)
        return _with_label(s * (g / z.shape[-1]), at)

    def _row_weights(self, z: Tensor, at: Tensor) -> Tensor:
        w = self.weight or ()
        if len(w) != z.shape[-1]:
            rule = f"the last axis of y must be the {len(w)} numbers of weight"
            raise value_error(self, rule, f"y of shape {tuple(z.shape)}")
        return torch.tensor(w, dtype=z.dtype, device=z.device).expand_as(z).gather(-1, at).squeeze(-1)


@frozen
class MulticlassHinge(TermLoss):
    """Hinge loss of classes, where the largest other score costs: ``optax.multiclass_hinge_loss``.

    With ``margin=0.0`` it is the perceptron's loss, ``optax.multiclass_perceptron_loss``.

    Args:
        margin: By how much the label's score must exceed the largest other score to cost nothing.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``; a term is a row.

    Shape:
        y (N, classes) or (classes,); target labels, integers (N,) or ().

    Cache:
        z, in float32 at least, and the labels.

    Raises:
        ValueError: As ``MultiMargin``.

    Source:
        Crammer & Singer 2001; Collins 2002 for margin 0; ``optax.multiclass_hinge_loss``'s formula.

    >>> MulticlassHinge()(torch.tensor([[0.0, 2.0, 1.5]]), torch.tensor([1]))
    tensor(0.5000)
    """

    margin: float = field(default=1.0, validator=number(0))
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Kept:
        return *_margins(self, y, target), None

    def loss(self, kept: Kept) -> Tensor:
        return kept[0].amax(-1)

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        z, at, _ = kept
        reached = (z == z.amax(-1, keepdim=True)).to(z.dtype)
        s = reached / reached.sum(-1, keepdim=True) * over_classes(g)
        return _with_label(s.scatter(-1, at, 0.0), at)


@frozen
class MultiLabelMargin(TermLoss):
    """Margin loss of classes of which several are right: ``torch.nn.MultiLabelMarginLoss``.

    Each row of the target lists the labels of that row, and ends with the first -1; what comes after it counts for nothing. A
    label that is listed twice counts twice.

    Args:
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batch"``; a term is a row.

    Shape:
        y (N, classes) or (classes,); target integers in the shape of y, filled up with -1.

    Cache:
        y, in float32 at least, the target, the terms, and which classes are labels.

    Raises:
        ValueError: For an unknown ``reduction``, a y without classes or that is not floating, a target without integers of its
            shape, and on the CPU a label that is neither -1 nor a class.

    Source:
        ``torch.nn.MultiLabelMarginLoss``'s formula.

    >>> MultiLabelMargin()(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([[3, 0, -1, 1]]))
    tensor(0.8500)
    """

    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Tensor) -> Any:
        y = require_rows(self, y)
        labels = require_labels(self, y, target, y.shape)
        try:
            return y, labels, *kernels.multilabel_margin(y, labels)
        except (IndexError, RuntimeError) as error:
            raise self._explained(y, labels, error) from None

    def loss(self, kept: Any) -> Tensor:
        terms: Tensor = kept[2]
        return terms

    def dloss_dy(self, kept: Any, g: Factor) -> Tensor:
        y, labels, _, is_label = kept
        return kernels.multilabel_margin_backward(g, y, labels, is_label)

    def weight_of(self, target: Tensor) -> float | Tensor:
        return row_count(target)

    def _explained(self, y: Tensor, labels: Tensor, error: Exception) -> Exception:
        """Turn the kernel's error into ours when it complains of a label; it does not say which."""
        if "out of range" not in str(error) and "out of bounds" not in str(error):
            return error
        rule = f"every label must be from 0 to {y.shape[-1] - 1}, or -1 after the last"
        return value_error(self, rule, numbers_in(labels))
