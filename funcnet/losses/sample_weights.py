"""Weights and masks of samples, passed in the target: w for the first axes of the terms ℓ, (N,) or (N, ...).

    WeightedLoss  "mean"   ℓ = Σ w ℓᵢ / Σ w k       k the weight of the term in the loss: 1, or the weight of its class
                  "sum"    ℓ = Σ w ℓᵢ               "batch"  ℓ = Σ w ℓᵢ / N         "none"  ℓ = w ℓᵢ
                  gy = g c w ∂ℓᵢ/∂y                 c the factor of the sum
                  gw = g c (ℓᵢ - k ℓ) for "mean", else g c ℓᵢ, summed over the axes that w lacks

A term of weight 0 is ignored: even if ℓᵢ is infinite or NaN, it adds 0 to the value and to the gradients of y and t.
"""

import math
from typing import Any, Self

import torch
from attrs import Factory, field
from torch import Tensor, strided

from funcnet import tree
from funcnet.contract import Cache
from funcnet.errors import value_error
from funcnet.kernels import losses as kernels
from funcnet.kernels.tracing import is_plain
from funcnet.losses.composite import Composite, as_given, in_full, kinds_of
from funcnet.losses.loss import Loss, rows_of, target_gradient
from funcnet.losses.parts import Weight
from funcnet.losses.sums import LossSum
from funcnet.precision import HALF, rounded
from funcnet.value import frozen


def _require_terms(got: Any) -> str:
    """Return the reduction of a loss after checking that it has terms to weight."""
    if not isinstance(got, Loss):
        raise value_error("weighted", "loss must be a loss", got)
    if isinstance(got, Composite):
        raise value_error("weighted", "weight each loss of a sum: losses_of(name=weighted(loss), ...)", repr(got))
    if isinstance(got, WeightedLoss) or _by_term(got) is None:
        raise value_error("weighted", 'the loss must have a reduction "none", which returns its terms', repr(got))
    if got.reduction == "mean" and not got.mean_of_terms:
        raise value_error("weighted", 'the mean must be a mean of terms; use reduction "sum" or "batch"', repr(got))
    return got.reduction


def _by_term(loss: Loss) -> Loss | None:
    """Return the loss with its terms as the value; ``None`` if it has no such reduction."""
    try:
        return loss.with_reduction("none")
    except (TypeError, ValueError):
        return None


@frozen
class WeightedLoss(Loss):
    """A loss whose target is a pair (target, weight); made by ``weighted``.

    Args:
        loss: The loss whose terms are weighted.
    """

    label = "weighted"

    loss: Loss
    reduction: str = field(init=False, eq=False, default=Factory(lambda one: _require_terms(one.loss), takes_self=True))
    _by_term: Any = field(init=False, eq=False, default=Factory(lambda one: _by_term(one.loss), takes_self=True))

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Cache]:
        t, w = self._pair(target)
        dtype, of_y, of_t = _dtype(y), kinds_of(y), kinds_of(t)
        y, t = in_full(y, t)
        terms, kept = self._by_term.forward(y, t)
        w = self._over_terms(w, terms)
        off = self._zeros(w)
        terms = terms if off is None else torch.where(off & ~terms.isfinite(), 0.0, terms)
        k = self.loss.term_weights(t) if self.reduction == "mean" else None
        c = self._factor(w, terms, k)
        value = w * terms if self.reduction == "none" else (w * terms).sum() * c
        return value.to(dtype), (kept, (terms, w, k, c, value, off), (y, t, target[1]), (of_y, of_t))

    def backward(self, cache: Cache, g: Any = None) -> Any:
        kept, (terms, w, _, c, _, off), (y, _, _), (of_y, _) = cache
        gy = self._by_term.backward(kept, self._gradient_of_terms(terms, w, c, g))
        return as_given(self._masked(gy, y, off, terms), of_y)

    def target_grad(self, cache: Cache, g: Any) -> Any:
        kept, (terms, w, k, c, value, off), (_, t, given), (_, of_t) = cache
        gt = target_gradient(self._by_term, kept, t, self._gradient_of_terms(terms, w, c, g))
        gt = as_given(self._masked(gt, t, off, terms), of_t)
        if not given.is_floating_point():
            return gt, None
        excess = terms if self.reduction != "mean" else terms - (value if k is None else value * k)
        gw = excess * (_full(g) * c)
        gw = gw.sum(tuple(range(given.dim(), gw.dim()))) if gw.dim() > given.dim() else gw
        return gt, rounded(gw, given)

    def weight_of(self, target: Any) -> Weight:
        t, w = self._pair(target)
        if self.reduction != "mean":
            return self.loss.weight_of(t) if tree.leaves(t) else rows_of(w)
        counts: Any = self.term_weights(target)
        return counts.sum()  # type: ignore[no-any-return]

    def with_reduction(self, reduction: str) -> Self:
        return self.replace(loss=self.loss.with_reduction(reduction))

    def term_weights(self, target: Any) -> Tensor | None:
        """Return w k; if k is 1 for all terms, in the shape of the weights."""
        t, w = self._pair(target)
        k = self.loss.term_weights(t)
        return w.double() if k is None else self._over_terms(w, k.double()) * k

    @property
    def batch_dependent(self) -> bool:
        return self.loss.batch_dependent

    @property
    def part_name(self) -> str:
        return self.loss.part_name

    def _pair(self, target: Any) -> tuple[Any, Tensor]:
        if not isinstance(target, tuple) or len(target) != 2:
            raise value_error(self, "target must be a pair (target, weight)", target)
        w = target[1]
        if not isinstance(w, Tensor) or w.is_complex() or w.layout is not strided or w.is_nested:
            raise value_error(self, "weight must be a dense tensor of numbers or booleans", w)
        return target

    def _over_terms(self, w: Tensor, terms: Tensor) -> Tensor:
        """Return the weights in the dtype of the terms, with axes of length 1 for those that they lack."""
        if w.shape != terms.shape[: w.dim()]:
            rule = f"weight must have the shape of the terms, {tuple(terms.shape)}, or of their first axes"
            raise value_error(self, rule, f"shape {tuple(w.shape)}")
        return w.to(terms.dtype).reshape((*w.shape, *[1] * (terms.dim() - w.dim())))

    def _zeros(self, w: Tensor) -> Tensor | None:
        """Return a mask of zero weights; ``None`` if a check finds none, since masks take 22 of 61 µs for 100×2."""
        if not w.numel() or not is_plain(w):
            return w == 0
        least = w.amin().item()
        if least < 0 and self.reduction == "mean":
            rule = 'the weights of a mean must be at least 0; reduction "sum" and "batch" allow negative weights'
            raise value_error(self, rule, f"{least:g}")
        return None if least > 0 else w == 0

    def _factor(self, w: Tensor, terms: Tensor, k: Tensor | None) -> Any:
        """Return c: 0 for the mean of terms that all have weight 0, NaN for the mean of no terms."""
        if self.reduction == "batch":
            return kernels.factor(terms.shape[0] if terms.dim() else 1, terms)
        if self.reduction != "mean":
            return terms.new_ones(())
        total = w.sum() * (terms.numel() // max(1, w.numel())) if k is None else (w * k).sum()
        empty = math.nan if not terms.numel() else 0.0
        return torch.where(total == 0, empty, 1 / torch.where(total == 0, 1.0, total))

    def _gradient_of_terms(self, terms: Tensor, w: Tensor, c: Any, g: Any) -> Tensor:
        gc = c if g is None else _full(g) * c
        gradient: Tensor = (w * gc).to(terms.dtype)
        return gradient.expand(terms.shape)

    def _masked(self, gradients: Any, values: Any, off: Tensor | None, terms: Tensor) -> Any:
        """Return gradients with exact zeros for terms of weight 0: the product with an infinite derivative would be NaN."""
        if off is None:
            return gradients
        off = off.expand(terms.shape)

        def masked(gradient: Tensor, leaf: Tensor) -> Tensor:
            at = self.loss.over_y(off, leaf)
            return gradient if at is None else torch.where(at, 0.0, gradient)

        return tree.map(masked, gradients, values)

    def __repr__(self) -> str:
        return f"weighted({self.loss!r})"


def _full(g: Any) -> Any:
    return g.float() if isinstance(g, Tensor) and g.dtype in HALF else g


def _dtype(y: Any) -> Any:
    """Return the dtype of the first leaf of y; ``None`` if it is not a tensor, for which the inner loss raises."""
    leaf = next(iter(tree.leaves(y)), None)
    return leaf.dtype if isinstance(leaf, Tensor) else None


def weighted(loss: Loss) -> Loss:
    """Give a loss weights or a mask for its samples or terms: its target becomes the pair (target, weight).

        ℓ  = Σ w ℓᵢ / Σ w k          for "mean"; k is 1, or the class weight of the term, 0 for ``ignore_index``
        gy = g c w ∂ℓᵢ/∂y            c = 1 / Σ w k for "mean", 1 for "sum" and "none", 1/N for "batch"
        gw = g c (ℓᵢ - k ℓ)          for "mean"; else g c ℓᵢ, summed over the axes that w lacks

    ``weight`` is a tensor of numbers or booleans with the shape of the terms (those of ``reduction="none"``) or of their first
    axes, like (N,) for one weight per row. Nothing else is broadcast. The mean is 0 if all weights are 0. A term of weight 0
    is ignored, even if it is infinite or NaN, and its gradient is exactly 0. The vjp of ``as_layer()`` also returns the
    gradient of the weights.

    ``torch.nn.BCELoss(weight=...)`` has such weights too, but its mean divides by the number of terms. For that, use
    ``reduction="sum"`` and divide the loss: ``weighted(BCE("sum")) / n``.

    Args:
        loss: A loss with a ``reduction``. In a sum, the weights apply to every term.

    Shape:
        y, (target, weight): y and target as the loss takes them, weight (N,) or (N, ...) → the shape of the value

    Cache:
        The cache of the loss, its terms and the weights, y and the target.

    Raises:
        ValueError: If the loss has no terms, if the target is not a pair, if the weights have another shape, or, on the CPU, if a
            mean has negative weights.

    >>> from funcnet.losses.regression import MSE
    >>> y, target = torch.tensor([1.0, 5.0, torch.nan]), torch.zeros(3)
    >>> weighted(MSE())(y, (target, torch.tensor([1.0, 0.5, 0.0])))
    tensor(9.)
    """
    if isinstance(loss, LossSum):
        return LossSum(tuple([(f, weighted(one)) for f, one in loss.terms]))
    return WeightedLoss(loss)
