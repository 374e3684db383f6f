"""Dice loss: one minus the overlap of predicted regions and their targets.

    Dice   ℓ = 1 - A / B      A = I + smooth      B = I + α (P - I) + β (T - I) + smooth
           I = Σ p t,  P = Σ p,  T = Σ t, over the pixels of an example, and of a class with ``multiclass``
           gp = gI t + gP        gI = (A (1 - α - β) / B - 1) / B      gP = α A / B²      gT = β A / B²
           gy = gp p (1 - p) for p = σ(y),  p (gp - Σ gp p) for p = softmax(y)      gt = gI p + gT

times the gradient of ℓ. With ``generalized``, ℓ is multiplied by v = C u / Σ u, u = 1 / (T² + 1e-7), over C classes and with T
summed over the batch; gt then has the further term 2 C T u² (Σ gv u / Σ u - gv) / Σ u. y is (N, ...), or (N, classes, ...).
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import fields_error, flag, number, value_error
from funcnet.kernels.limits import softmax
from funcnet.losses.loss import Factor, reductions, weights
from funcnet.losses.terms import TermLoss, is_dense, label_error, require_labels, require_like
from funcnet.precision import in_single
from funcnet.value import frozen

Kept = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]  # p, t, A, B, v, u, T

_LEAST = 1e-7
"""Added to the squared frequency of a class, as in optax."""


def _for_classes(value: Any, attribute: Any, got: Any) -> None:
    """Validate an option for several classes, after its own validator."""
    if got and not value.multiclass:
        raise fields_error(value, f"{attribute.name} needs multiclass=True", attribute.name, "multiclass")


@frozen
class Dice(TermLoss):
    """Dice loss of segmentations; with ``alpha`` and ``beta`` other than ½, the Tversky loss: ``optax.dice_loss``.

        ℓ  = 1 - A / B           A = I + smooth,  B = I + α (P - I) + β (T - I) + smooth,  I = Σ p t,  P = Σ p,  T = Σ t
        gp = gI t + gP           gI = (A (1 - α - β) / B - 1) / B,  gP = α A / B²,  gT = β A / B²
        gy = gp p (1 - p)        for p = σ(y);  p (gp - Σ gp p) for p = softmax(y)
        gt = gI p + gT

    The sums are over the pixels of an example. By default y holds the logits of one foreground, and a term is an example. With
    ``multiclass`` a term is a class of an example. An example that is empty in both y and target costs nothing, even with
    ``smooth=0``.

    Args:
        smooth: Added to numerator and denominator; it keeps the loss small if prediction and target are nearly empty.
        alpha: α, the weight of false positives.
        beta: β, the weight of false negatives.
        multiclass: Whether axis 1 of y holds classes, with a softmax over them.
        logits: Whether y holds logits; else it holds probabilities.
        weight: A factor for each class.
        generalized: Whether to weight each class by the inverse square of its size in the batch, as
            ``optax.losses.multiclass_generalized_dice_loss``. A class missing from the batch then has nearly all of the weight,
            and a mean over batches differs from the mean over all rows.
        ignore_background: Whether to leave out class 0.
        reduction: ``"mean"`` over all terms, ``"sum"``, ``"none"`` for one value per term, or ``"batch"`` for the sum divided by
            N.

    Shape:
        y (N, ...), target of the same shape, from 0 to 1 → (), or (N,) with ``reduction="none"``; with ``multiclass`` y (N,
        classes, ...), target of the same shape or labels (N, ...) → (), or (N, classes)

    Cache:
        p and t, in float32 or wider, A, B, the weights of the classes, and with ``generalized`` u and T of the batch.

    Raises:
        ValueError: If ``smooth``, ``alpha`` or ``beta`` is below 0, an option for several classes is set without ``multiclass``,
            the number of weights differs from the number of classes, y has no axis of pixels, or a label is out of range (on the
            CPU).

    References:
        Milletari et al. 2016; Salehi et al. 2017 for ``alpha`` and ``beta``; Sudre et al. 2017 for ``generalized``;
        ``optax.dice_loss``.

    >>> Dice(smooth=0.0)(torch.tensor([[99.0, 99.0, -99.0, -99.0]]), torch.tensor([[1, 0, 0, 0]]))
    tensor(0.3333)
    """

    smooth: float = field(default=1.0, validator=number(0))
    alpha: float = field(default=0.5, validator=number(0))
    beta: float = field(default=0.5, validator=number(0))
    multiclass: bool = field(default=False, validator=flag)
    logits: bool = field(default=True, validator=flag)
    weight: tuple[float, ...] | None = field(default=None, validator=[weights, _for_classes])
    generalized: bool = field(default=False, validator=[flag, _for_classes])
    ignore_background: bool = field(default=False, validator=[flag, _for_classes])
    reduction: str = field(default="mean", validator=reductions)

    def cache(self, y: Tensor, target: Any) -> Kept:
        self._require_pixels(y)
        t = self._target(y, target)
        p = self._probabilities(in_single(y))
        dims = list(range(2 if self.multiclass else 1, p.dim()))
        both, of_p, of_t = (p * t).sum(dims), p.sum(dims), t.sum(dims)
        over = both + self.smooth
        under = over + self.alpha * (of_p - both) + self.beta * (of_t - both)
        return p, t, over, under, *self._class_weights(of_t)

    def loss(self, kept: Kept) -> Tensor:
        _, _, over, under, v, *_ = kept
        terms = _terms(over, under)
        terms = terms if v is None else terms * v
        return terms[:, 1:] if self.ignore_background else terms

    def dloss_dy(self, kept: Kept, g: Factor) -> Tensor:
        p, t, over, under, v, *_ = kept
        gi, gp, _ = self._slopes(over, under, v, g)
        gp = _over_pixels(gi, p) * t + _over_pixels(gp, p)
        if not self.logits:
            return gp
        return p * (gp - (gp * p).sum(1, keepdim=True)) if self.multiclass else gp * p * (1 - p)

    def dloss_dt(self, kept: Kept, g: Factor) -> Tensor:
        p, _, over, under, v, u, total = kept
        gi, _, gt = self._slopes(over, under, v, g)
        gt = _over_pixels(gi, p) * p + _over_pixels(gt, p)
        if u is None or v is None or total is None:
            return gt
        share, gv = v * u.sum() / u, self._of_all_classes(g, over) * _terms(over, under)
        return gt + _gradient_of_sizes((share * gv).sum(0), u, total).reshape(-1, *[1] * (p.dim() - 2))

    @property
    def batch_dependent(self) -> bool:
        return self.generalized

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        return None if self.generalized else super().over_y(terms, leaf)  # each row's target then affects all terms

    def _slopes(self, over: Tensor, under: Tensor, v: Tensor | None, g: Factor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of I, P and T."""
        g, inverse = self._of_all_classes(g, over), _inverse(under)
        g = (g if v is None else g * v) * inverse
        share = over * inverse
        return g * (share * (1 - self.alpha - self.beta) - 1), g * (self.alpha * share), g * (self.beta * share)

    def _of_all_classes(self, g: Factor, over: Tensor) -> Factor:
        """Return the gradient of the terms of all classes, with 0 for an ignored background."""
        if not self.ignore_background:
            return g
        known = over[:, 1:]
        rest = g.expand_as(known) if isinstance(g, Tensor) else torch.full_like(known, g)
        return torch.cat([torch.zeros_like(over[:, :1]), rest], 1)

    def _require_pixels(self, y: Any) -> None:
        axes = "(N, classes, ...), with an axis of pixels" if self.multiclass else "(N, ...), with an axis of pixels"
        if not is_dense(y) or y.dim() < 2 + self.multiclass or (self.multiclass and y.shape[1] < 1 + self.ignore_background):
            raise value_error(self, f"y must be a dense floating tensor with the axes {axes}", y)
        if self.weight is not None and len(self.weight) != y.shape[1]:
            raise value_error(self, f"y must have one class for each weight, {len(self.weight)}", f"y of shape {tuple(y.shape)}")

    def _target(self, y: Tensor, target: Any) -> Tensor:
        if not self.multiclass or not isinstance(target, Tensor) or target.dim() == y.dim():
            return require_like(self, y, target)
        labels = require_labels(self, y, target, y.shape[:1] + y.shape[2:]).unsqueeze(1)
        try:
            return torch.zeros_like(in_single(y)).scatter(1, labels, 1.0)
        except (IndexError, RuntimeError) as error:
            raise label_error(self, y.shape[1], error) from None

    def _probabilities(self, y: Tensor) -> Tensor:
        if not self.logits:
            return y
        return softmax(y, 1) if self.multiclass else torch.sigmoid(y)

    def _class_weights(self, of_t: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the weights of the classes, and with ``generalized`` u and T of the batch."""
        w = None if self.weight is None else torch.tensor(self.weight, dtype=of_t.dtype, device=of_t.device)
        if not self.generalized:
            return w, None, None
        total = of_t.sum(0)
        u = 1 / (total * total + _LEAST)
        v = len(u) * u / u.sum()
        return v if w is None else v * w, u, total


def _inverse(under: Tensor) -> Tensor:
    """Return 1 / B, and 0 where B is 0: prediction and target are both empty."""
    return (under != 0) / under.masked_fill(under == 0, 1.0)


def _terms(over: Tensor, under: Tensor) -> Tensor:
    """Return 1 - A / B, and 0 where both are 0."""
    return (under - over) * _inverse(under)


def _gradient_of_sizes(gu: Tensor, u: Tensor, total: Tensor) -> Tensor:
    """Return the gradient of T from the gradient of u / Σ u."""
    return 2 * total * u * u * ((gu * u).sum() / u.sum() - gu) / u.sum()


def _over_pixels(x: Tensor, p: Tensor) -> Tensor:
    """Append axes of pixels to one number per example, or per example and class."""
    return x.reshape(*x.shape, *[1] * (p.dim() - x.dim()))
