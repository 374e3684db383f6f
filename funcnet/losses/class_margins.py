"""Margin losses for several classes. t is a label, h(z) = max(0, z), and [...] is 1 where the condition holds, else 0.

    MultiMargin        ℓ = Σ w_t h(zᵢ)ᵖ / classes, over i ≠ t     zᵢ = margin - y_t + yᵢ
                       ∂ℓ/∂y = s, and -Σ sᵢ at t                  sᵢ = w_t p h(zᵢ)ᵖ⁻¹ [zᵢ > 0] / classes
    MulticlassHinge    ℓ = h(max zᵢ), over i ≠ t
                       ∂ℓ/∂y = s, and -Σ sᵢ at t                  sᵢ = 1 / k at the k largest zᵢ (z_t = 0), else 0
    MultiLabelMargin   ℓ = Σ h(z_ti) / classes, over labels t and other classes i                 z_ti = 1 - y_t + yᵢ
                       ∂ℓ/∂y = Σ_t s_ti, and -Σᵢ s_ti at t        s_ti = [z_ti > 0] / classes

y is (N, classes) or (classes,), with one term ℓ for each row. At the kinks, z = 0, the derivatives of MultiMargin and
MultiLabelMargin are 0, as in torch.nn. In MulticlassHinge the label counts as zᵢ = 0, which halves the derivative at the kink, as
in optax.
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
    """Return margin - y_t + yᵢ, with 0 at the label itself, and the labels with an axis of classes."""
    y = require_rows(loss, y)
    at = require_labels(loss, y, target, y.shape[:-1]).unsqueeze(-1)
    try:
        return (loss.margin - y.gather(-1, at) + y).scatter(-1, at, 0.0), at
    except (IndexError, RuntimeError) as error:
        raise label_error(loss, y.shape[-1], error) from None


def _with_label(s: Tensor, at: Tensor) -> Tensor:
    """Return the derivatives s, with -Σ s at each label."""
    return s.scatter(-1, at, -s.sum(-1, keepdim=True))


@frozen
class MultiMargin(TermLoss):
    """Margin loss of labels to which every class within the margin contributes: ``torch.nn.MultiMarginLoss``.

        ℓ     = Σ w_t h(zᵢ)ᵖ / classes, over i ≠ t            zᵢ = margin - y_t + yᵢ,  h(z) = max(0, z)
        ∂ℓ/∂y = s, and -Σ sᵢ at t                             sᵢ = w_t p h(zᵢ)ᵖ⁻¹ [zᵢ > 0] / classes

    Args:
        p: The exponent, 1 or 2.
        margin: By how much the label's score must exceed each other score to cost nothing.
        weight: w, a factor for the rows of each class. The mean divides by the number of rows, not by the sum of weights.
        reduction: ``"mean"`` over rows, ``"sum"``, ``"none"`` for one value per row, or ``"batch"`` for the sum divided by N.

    Shape:
        y (N, classes) or (classes,), labels (N,) or () → (), or the shape of the labels with ``reduction="none"``

    Cache:
        z, in float32 or wider, the labels, and the weight of each row or ``None``.

    Raises:
        ValueError: If ``p`` is neither 1 nor 2, if the number of weights differs from the number of classes, or if a label is out
            of range (on the CPU).

    References:
        ``torch.nn.MultiMarginLoss``.

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
            rule = f"the last axis of y must have the size of weight, {len(w)}"
            raise value_error(self, rule, f"y of shape {tuple(z.shape)}")
        return torch.tensor(w, dtype=z.dtype, device=z.device).expand_as(z).gather(-1, at).squeeze(-1)


@frozen
class MulticlassHinge(TermLoss):
    """Hinge loss of labels to which only the largest other score contributes: ``optax.multiclass_hinge_loss``.

        ℓ     = max(0, max zᵢ), over i ≠ t                    zᵢ = margin - y_t + yᵢ
        ∂ℓ/∂y = s, and -Σ sᵢ at t                             sᵢ = 1 / k at the k largest zᵢ (z_t = 0), else 0

    With ``margin=0.0`` it is the perceptron loss: ``optax.multiclass_perceptron_loss``.

    Args:
        margin: By how much the label's score must exceed the largest other score to cost nothing.
        reduction: ``"mean"`` over rows, ``"sum"``, ``"none"`` for one value per row, or ``"batch"`` for the sum divided by N.

    Shape:
        y (N, classes) or (classes,), labels (N,) or () → (), or the shape of the labels with ``reduction="none"``

    Cache:
        z, in float32 or wider, and the labels.

    Raises:
        ValueError: If ``margin`` is below 0, or if a label is out of range (on the CPU).

    References:
        Crammer & Singer 2001; Collins 2002 for margin 0; ``optax.multiclass_hinge_loss``.

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
    """Margin loss of rows with several labels each: ``torch.nn.MultiLabelMarginLoss``.

        ℓ     = Σ h(z_ti) / classes, over labels t and other classes i        z_ti = 1 - y_t + yᵢ,  h(z) = max(0, z)
        ∂ℓ/∂y = Σ_t s_ti, and -Σᵢ s_ti at t                                   s_ti = [z_ti > 0] / classes

    Each row of the target lists its labels and ends at the first -1; everything after it is ignored. A label that is listed twice
    counts twice.

    Args:
        reduction: ``"mean"`` over rows, ``"sum"``, ``"none"`` for one value per row, or ``"batch"`` for the sum divided by N.

    Shape:
        y (N, classes) or (classes,), integers of the same shape, padded with -1 → (), or (N,) or () with ``reduction="none"``

    Cache:
        y, in float32 or wider, the target, the terms, and a mask of the classes that are labels.

    Raises:
        ValueError: If a label is neither -1 nor a class (on the CPU).

    References:
        ``torch.nn.MultiLabelMarginLoss``.

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
            raise self._explain_kernel_error(y, labels, error) from None

    def loss(self, kept: Any) -> Tensor:
        terms: Tensor = kept[2]
        return terms

    def dloss_dy(self, kept: Any, g: Factor) -> Tensor:
        y, labels, _, is_label = kept
        return kernels.multilabel_margin_backward(g, y, labels, is_label)

    def weight_of(self, target: Tensor) -> float | Tensor:
        return row_count(target)

    def _explain_kernel_error(self, y: Tensor, labels: Tensor, error: Exception) -> Exception:
        """Return an error that lists the labels if the kernel failed because of one, else the kernel's error."""
        if "out of range" not in str(error) and "out of bounds" not in str(error):
            return error
        rule = f"every label must be from 0 to {y.shape[-1] - 1}, or -1 after the last"
        return value_error(self, rule, numbers_in(labels))
