"""Binary cross-entropies. σ(y) = 1 / (1 + e⁻ʸ), t the target, g the value's gradient.

    BCE            ℓ = -t log y - (1 - t) log(1 - y)                 log clamped at -100
                   ∂ℓ/∂y = (y - t) / (y (1 - y))                     ∂ℓ/∂t = log(1 - y) - log y
    BCEWithLogits  ℓ = -w t log σ(y) - (1 - t) log σ(-y)             w = pos_weight
                     = |y| q - (1 + (w - 1) t) log σ(|y|)            q = 1 - t where y > 0, else w t
                   ∂ℓ/∂y = (1 + (w - 1) t) σ(y) - w t                ∂ℓ/∂t = log σ(-y) - w log σ(y)

y and t (...) have one shape. A product with 0 is 0 here, whatever the other factor: a class that is impossible and does not
occur costs nothing.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import describe, value_error
from funcnet.kernels import losses as kernels
from funcnet.losses.loss import ElementwiseLoss, Factor, weight_or_weights
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]
Weighted = tuple[Tensor, Tensor, Factor]


@frozen
class BCE(ElementwiseLoss):
    """Binary cross-entropy of probabilities, as ``torch.nn.BCELoss``; from logits, ``BCEWithLogits`` is more exact.

    Like torch's, its logarithms are at least -100 and the denominator of its slope at least 1e-12, so that 0 and 1 are allowed.
    There are two differences: at y = t = 0 and y = t = 1 the slope is the limit, 1 and -1, where torch has 0, or NaN in float16;
    and the target's gradient is that of the bounded logarithms, where torch's is infinite. A tensor of weights, torch's
    ``weight``, is part of the target: ``weighted(BCE())``.

    >>> BCE()(torch.tensor([0.5]), torch.tensor([1.0]))
    tensor(0.6931)

    Cache    ``y`` and ``target``.
    Raises   ``ValueError`` for an unknown ``reduction``, when ``y`` is not a floating tensor, when ``target`` has another shape
             (nothing is broadcast) or another floating dtype, and on the CPU for numbers outside 0 to 1 and NaN.
    Source   ``torch.nn.BCELoss``'s formula.
    """

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        try:
            return kernels.binary_cross_entropy(*kept)
        except RuntimeError as error:
            raise self._explained(*kept, error) from None

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return kernels.binary_slope(*kept) * c

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return kernels.binary_target_slope(kept[0]) * c

    def _explained(self, y: Tensor, t: Tensor, error: RuntimeError) -> Exception:
        name = next((name for name in ("input", "target") if f"elements of {name}" in str(error)), None)
        if name is None:
            return error
        given = "y" if name == "input" else name
        return value_error(self, f"{given} must hold probabilities, from 0 to 1", _range(y if given == "y" else t))


def _range(x: Tensor) -> str:
    """Say which numbers a tensor holds, where they can be read; a transform of ``torch.func`` hides them."""
    try:
        low, high = x.aminmax()
        return f"numbers from {low.item():g} to {high.item():g}"
    except RuntimeError:
        return describe(x)


@frozen
class BCEWithLogits(ElementwiseLoss):
    """Binary cross-entropy of logits, -log σ(y) where the target is 1 and -log σ(-y) where it is 0, exact for any y.

    ``pos_weight`` multiplies the term of the target 1: one number, or a tuple with one for each entry of the last axis. As
    ``torch.nn.BCEWithLogitsLoss``, but an infinite logit on the right side costs 0, where torch has NaN. A tensor of weights,
    torch's ``weight``, is part of the target: ``weighted(BCEWithLogits())``.

    >>> BCEWithLogits()(torch.tensor([0.0, -torch.inf]), torch.tensor([1.0, 0.0]))
    tensor(0.3466)

    Cache    ``y``, ``target``, and ``pos_weight`` as a tensor.
    Raises   ``ValueError`` for an unknown ``reduction``, a ``pos_weight`` that is negative or not finite, or whose length is
             not that of the last axis, when ``y`` is not a floating tensor, and when ``target`` has another shape (nothing
             is broadcast) or another floating dtype; integers and booleans are taken as numbers.
    Source   ``torch.nn.BCEWithLogitsLoss``'s formula.
    """

    pos_weight: float | tuple[float, ...] | None = field(default=None, validator=weight_or_weights)

    def cache(self, y: Tensor, t: Tensor) -> Weighted:
        if not isinstance(self.pos_weight, tuple):
            return y, t, 1.0 if self.pos_weight is None else self.pos_weight
        if y.dim() == 0 or y.shape[-1] != len(self.pos_weight):
            rule = f"the last axis of y must be the {len(self.pos_weight)} numbers of pos_weight"
            raise value_error(self, rule, f"y of shape {tuple(y.shape)}")
        return y, t, torch.tensor(self.pos_weight, dtype=y.dtype, device=y.device)

    def loss(self, kept: Weighted) -> Tensor:
        y, t, w = kept
        size, wt = kernels.magnitude(y), self._positive(t, w)
        q = wt - kernels.where_positive(wt, y) + kernels.where_positive(1 - t, y)
        return kernels.product(q, size) - self._both(t, w, kernels.log_sigmoid(size))

    def dloss_dy(self, kept: Weighted, c: Factor) -> Tensor:
        y, t, w = kept
        p = torch.sigmoid(y)
        return (p - t if self.pos_weight is None else torch.addcmul(p, t, (w - 1) * p - w)) * c

    def dloss_dt(self, kept: Weighted, c: Factor) -> Tensor:
        y, _, w = kept
        if self.pos_weight is None:
            return -y * c
        return (kernels.log_sigmoid(-y) - w * kernels.log_sigmoid(y)) * c

    def _positive(self, t: Tensor, w: Factor) -> Tensor:
        """Return w t."""
        return t if self.pos_weight is None else w * t

    def _both(self, t: Tensor, w: Factor, x: Tensor) -> Tensor:
        """Return (1 + (w - 1) t) x."""
        return x if self.pos_weight is None else (1 + (w - 1) * t) * x
