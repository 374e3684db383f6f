"""Binary cross-entropy, from probabilities and from logits. σ(y) = 1 / (1 + e⁻ʸ), t is the target, g the gradient of the value.

    BCE            ℓ = -t log y - (1 - t) log(1 - y)                 log clamped at -100
                   ∂ℓ/∂y = (y - t) / (y (1 - y))                     ∂ℓ/∂t = log(1 - y) - log y
    BCEWithLogits  ℓ = -w t log σ(y) - (1 - t) log σ(-y)             w = pos_weight
                     = |y| q - (1 + (w - 1) t) log σ(|y|)            q = 1 - t where y > 0, else w t
                   ∂ℓ/∂y = (1 + (w - 1) t) σ(y) - w t                ∂ℓ/∂t = log σ(-y) - w log σ(y)

y and t (...) have the same shape. Here 0 times infinity is 0: an impossible class that does not occur costs nothing.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.errors import describe, value_error
from funcnet.kernels import losses as kernels
from funcnet.losses.elementwise_loss import ElementwiseLoss
from funcnet.losses.loss import Factor, weight_or_weights
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]
Weighted = tuple[Tensor, Tensor, Factor]


@frozen
class BCE(ElementwiseLoss):
    """Binary cross-entropy of probabilities: ``torch.nn.BCELoss``. ``BCEWithLogits`` on logits is more accurate.

        ℓ     = -t log y - (1 - t) log(1 - y)
        ∂ℓ/∂y = (y - t) / (y (1 - y))           ∂ℓ/∂t = log(1 - y) - log y

    As in torch, the logarithms are at least -100 and the denominator of ∂ℓ/∂y is at least 1e-12, so y can be exactly 0 or 1. Two
    results differ from torch's. At y = t = 0 and y = t = 1, ∂ℓ/∂y is its limit, 1 and -1; torch returns 0, or NaN in float16. The
    gradient of the target uses the clamped logarithms; torch's is infinite. Instead of torch's ``weight``, a tensor, use
    ``weighted(BCE())``: the weights are then part of the target.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y and the target, not copied.

    Raises:
        ValueError: If y or the target contains NaN or a number outside [0, 1] (on the CPU).

    References:
        ``torch.nn.BCELoss``.

    >>> BCE()(torch.tensor([0.5]), torch.tensor([1.0]))
    tensor(0.6931)
    """

    def cache(self, y: Tensor, t: Tensor) -> Pair:
        return y, t

    def loss(self, kept: Pair) -> Tensor:
        try:
            return kernels.binary_cross_entropy(*kept)
        except RuntimeError as error:
            raise self._explain_kernel_error(*kept, error) from None

    def dloss_dy(self, kept: Pair, c: Factor) -> Tensor:
        return kernels.binary_slope(*kept) * c

    def dloss_dt(self, kept: Pair, c: Factor) -> Tensor:
        return kernels.binary_target_slope(kept[0]) * c

    def _explain_kernel_error(self, y: Tensor, t: Tensor, error: RuntimeError) -> Exception:
        name = next((name for name in ("input", "target") if f"elements of {name}" in str(error)), None)
        if name is None:
            return error
        given = "y" if name == "input" else name
        return value_error(self, f"{given} must hold probabilities, from 0 to 1", _range(y if given == "y" else t))


def _range(x: Tensor) -> str:
    """Describe the range of a tensor's numbers, or the tensor itself if a transform of ``torch.func`` hides its numbers."""
    try:
        low, high = x.aminmax()
        return f"numbers from {low.item():g} to {high.item():g}"
    except RuntimeError:
        return describe(x)


@frozen
class BCEWithLogits(ElementwiseLoss):
    """Binary cross-entropy of logits, accurate for any y: ``torch.nn.BCEWithLogitsLoss``.

        ℓ     = -w t log σ(y) - (1 - t) log σ(-y)               w = pos_weight
        ∂ℓ/∂y = (1 + (w - 1) t) σ(y) - w t                      without w: σ(y) - t
        ∂ℓ/∂t = log σ(-y) - w log σ(y)                          without w: -y

    An infinite logit of the correct sign costs 0; torch returns NaN. Instead of torch's ``weight``, a tensor, use
    ``weighted(BCEWithLogits())``: the weights are then part of the target.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.
        pos_weight: w, the weight of positive targets: one number, or a tuple with a number for each entry of the last axis.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Cache:
        y, the target, and ``pos_weight``; a tuple is converted to a tensor.

    Raises:
        ValueError: If ``pos_weight`` is negative or not finite, or if its length differs from the size of the last axis of y.

    References:
        ``torch.nn.BCEWithLogitsLoss``.

    >>> BCEWithLogits()(torch.tensor([0.0, -torch.inf]), torch.tensor([1.0, 0.0]))
    tensor(0.3466)
    """

    pos_weight: float | tuple[float, ...] | None = field(default=None, validator=weight_or_weights)

    def cache(self, y: Tensor, t: Tensor) -> Weighted:
        if not isinstance(self.pos_weight, tuple):
            return y, t, 1.0 if self.pos_weight is None else self.pos_weight
        if y.dim() == 0 or y.shape[-1] != len(self.pos_weight):
            rule = f"the last axis of y must have the size of pos_weight, {len(self.pos_weight)}"
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
