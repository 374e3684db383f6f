"""The base of losses with one term per element, ``ElementwiseLoss``."""

from abc import abstractmethod
from typing import Any

from attrs import field
from torch import Tensor

from funcnet.contract import Cache
from funcnet.kernels import losses as kernels
from funcnet.losses.loss import Factor, Loss, fitting_target, reduction_scale, reductions, require_floating, rows_of
from funcnet.precision import HALF
from funcnet.value import frozen


@frozen
class ElementwiseLoss(Loss):
    """The base of losses with one term ℓ(y, t) per element; y and target have the same shape.

        value = c Σ ℓ(y, t)           c = 1/n for "mean", 1 for "sum", 1/N for "batch"
        gy    = g c ∂ℓ/∂y             gt = g c ∂ℓ/∂t

    A subclass defines ``cache``, ``loss``, ``dloss_dy`` and ``dloss_dt``. They receive inputs in half precision as float32; the
    value and the gradients are rounded once.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"`` for one value per element, or ``"batch"`` for the sum
            divided by the length of axis 0.

    Shape:
        y (...), target (...) → (), or (...) with ``reduction="none"``

    Raises:
        ValueError: If the target has another shape than y or another floating dtype. Integers and booleans are converted.

    >>> import torch
    >>> @frozen
    ... class Quartic(ElementwiseLoss):
    ...     def cache(self, y, t):
    ...         return y - t
    ...
    ...     def loss(self, d):
    ...         return d**4
    ...
    ...     def dloss_dy(self, d, c):
    ...         return 4 * c * d**3
    ...
    ...     def dloss_dt(self, d, c):
    ...         return self.dloss_dy(d, -c)
    >>> Quartic().value_and_grad(torch.tensor([2.0]), torch.tensor([1.0]))
    (tensor(1.), tensor([4.]))
    """

    reduction: str = field(default="mean", validator=reductions)

    @abstractmethod
    def cache(self, y: Tensor, t: Tensor) -> Any:
        """Return the cache from which value and gradients are computed.

        Args:
            y: The output, in float32 or float64.
            t: The target, in the dtype of y.
        """

    @abstractmethod
    def loss(self, kept: Any) -> Tensor:
        """Return ℓ for each element.

        Args:
            kept: The return value of ``cache``.
        """

    @abstractmethod
    def dloss_dy(self, kept: Any, c: Factor) -> Tensor:
        """Return c ∂ℓ/∂y.

        Args:
            kept: The return value of ``cache``.
            c: A number, or a tensor: 0-d or in the shape of y.
        """

    @abstractmethod
    def dloss_dt(self, kept: Any, c: Factor) -> Tensor:
        """Return c ∂ℓ/∂t.

        Args:
            kept: The return value of ``cache``.
            c: A number, or a tensor: 0-d or in the shape of y.
        """

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else rows_of(target)

    def total(self, kept: Any, c: Factor) -> Tensor:
        """Return c Σ ℓ. Override it to compute the sum without storing the terms.

        Args:
            kept: The return value of ``cache``.
            c: A number or a 0-d tensor.
        """
        return kernels.weighted_sum(self.loss(kept), c)

    def forward(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        if type(y) is not Tensor or type(target) is not Tensor or y.shape != target.shape or y.dtype is not target.dtype:
            target = fitting_target(self, y, target)
        elif y.layout is not target.layout or not y.is_floating_point():
            require_floating(self, y, target)
        if y.dtype in HALF:
            return self._forward_in_single(y, target)
        kept = self.cache(y, target)
        if self.reduction == "none":
            return self.loss(kept), (kept, 1.0, None)
        c = reduction_scale(self.reduction, y)
        return self.total(kept, c), (kept, c, None)

    def _forward_in_single(self, y: Tensor, target: Tensor) -> tuple[Tensor, Cache]:
        value, (kept, c, _) = self.forward(y.float(), target.float())
        return value.to(y.dtype), (kept, c, y.new_empty(0))

    def backward(self, cache: Cache, g: Tensor | None = None) -> Tensor:
        kept, c, kind = cache
        if kind is not None:
            return self.dloss_dy(kept, _scale_in_single(g, c)).to(kind.dtype)
        return self.dloss_dy(kept, c if g is None else g * c)

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        kept, c, kind = cache
        return self.dloss_dt(kept, g * c) if kind is None else self.dloss_dt(kept, _scale_in_single(g, c)).to(kind.dtype)


def _scale_in_single(g: Any, c: Factor) -> Factor:
    """Return g c in float32."""
    return c if g is None else (g.float() if isinstance(g, Tensor) else g) * c
