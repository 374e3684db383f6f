"""The contract of losses: a frozen value that measures how far an output y is from its target t, and has its gradient.

    loss(y, target) -> value
    loss.value_and_grad(y, target) -> (value, gy)
    loss.as_layer()                                  a layer on the pair (y, target), whose vjp gives both gradients
    loss.weight_of(target) -> w                      how much a batch counts for in a mean over batches

The first three come from one forward and one backward. ``reduction`` says what becomes of the terms ℓ, one for each element of y
(for ``CrossEntropy``: one for each label). The value has the unit of ℓ, and the shape () but for "none":

    "mean"    value = Σ ℓ / n, over all n terms                 of no terms NaN, as in torch
    "sum"     value = Σ ℓ                                       of no terms 0
    "batch"   value = Σ ℓ / N, N the length of axis 0           of an empty batch NaN; one sample without a batch has N = 1
    "none"    value = ℓ, and ``value_and_grad`` has the gradient of Σ ℓ

Losses add and scale (``MSE() + 0.1 * L1()``, ``losses.sums``), ``losses_of`` is the loss of a net with named outputs, and
``weighted`` takes weights and masks for the rows or terms.

A custom loss subclasses ``Loss`` (two methods, three with a gradient for the target) or ``ElementwiseLoss`` (four one-liners).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from attrs import field
from torch import Tensor, strided

from funcnet import tree
from funcnet.checks import check_gy, require_no_params
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, is_number, one_of, value_error
from funcnet.explanations import explain_loss_error, raise_explained
from funcnet.kernels import losses as kernels
from funcnet.losses.parts import Summand
from funcnet.precision import HALF
from funcnet.value import frozen

Factor = Tensor | float

HOOKS = ("forward", "backward", "cache", "loss", "total", "dloss_dy")
"""What value and gradient of y are made of: a class that overrides one must define ``unchecked`` too, or has none."""

reductions = one_of("mean", "sum", "none", "batch")
"""Validate a field ``reduction``."""


def _nonnegative(value: object) -> bool:
    return is_number(value) and value >= 0  # type: ignore[operator]  # it is a number


def weights(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be ``None`` or a tuple of finite numbers that are not negative."""
    if got is not None and not (isinstance(got, tuple) and got and all(map(_nonnegative, got))):
        rule = f"{attribute.name} must be None or a tuple of finite numbers of at least 0"
        raise value_error(type(value).__name__, rule, repr(got))


def weight_or_weights(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be ``None``, or one finite number that is not negative, or a tuple of such."""
    if not _nonnegative(got) and not (got is None or (isinstance(got, tuple) and got and all(map(_nonnegative, got)))):
        rule = f"{attribute.name} must be None, a finite number of at least 0, or a tuple of such"
        raise value_error(type(value).__name__, rule, repr(got))


class Loss(Summand):
    """A frozen value with ``forward`` and ``backward``; every loss has a field ``reduction``.

    ``loss + other``, ``loss - other``, ``2 * loss``, ``loss / 3``, ``-loss`` and ``sum([...])`` are losses too.
    """

    __slots__ = ()

    mean_of_terms: ClassVar[bool] = True
    """Whether ``"mean"`` is a mean of the terms of ``"none"``; then ``weighted`` may weigh them."""

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        """Return the gradient of a floating target, from that of the value; ``None`` where it has none."""
        return None

    def __call__(self, y: Tensor, target: Tensor) -> Tensor:
        """Return the value alone."""
        try:
            return self.forward(y, target)[0]
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def value_and_grad(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and the gradient of y: ``(value, gy)``."""
        try:
            value, cache = self.forward(y, target)
            return value, self.backward(cache)
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def unchecked(self, y: Tensor, target: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Return ``value_and_grad`` without its checks, for a y and a target like these; by default ``None``.

        Both are dense tensors in main memory of float32, float64 or int64, in eager mode, and have passed all checks. The bits
        must be those of ``value_and_grad``.
        """
        return None

    def weight_of(self, target: Any) -> float | Tensor:
        """Return how much a batch with this target counts for in a mean over batches: Σ w value / Σ w is the value of all rows.

        It is the number by which the reduction divides, here the number of rows: a number, or a 0-d tensor where it depends on
        what ``target`` holds. The values of ``reduction="sum"`` are added instead.
        """
        return rows_of(target)

    def term_weights(self, target: Any) -> Tensor | None:
        """Return what each term counts for in the mean, in the shape of the terms; ``None`` if all count 1.

        By default that of each entry of a target with one label for each term, found with ``weight_of``.
        """
        of_mean = (self if self.reduction == "mean" else self.with_reduction("mean")).weight_of
        if not isinstance(target, Tensor) or not isinstance(of_mean(target), Tensor):
            return None
        counts: Any = torch.func.vmap(of_mean)(target.reshape(-1, 1))
        return counts.reshape(target.shape)  # type: ignore[no-any-return]

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        """Give a tensor of the terms' shape the axes of a leaf of y or of the target; ``None`` where terms have no place in it.

        By default a loss has a term for each element, or for each row (N, ...) of the leaf, or has reduced the axis of the
        classes or features: axis 1, or the axis of a vector.
        """
        axis = min(1, terms.dim())
        if leaf.dim() == terms.dim() + 1 and leaf.shape[:axis] + leaf.shape[axis + 1 :] == terms.shape:
            return terms.unsqueeze(axis)
        if leaf.shape[: terms.dim()] != terms.shape:
            return None
        return terms.reshape((*terms.shape, *[1] * (leaf.dim() - terms.dim())))

    def as_layer(self) -> "LossLayer":
        """Return the loss as a layer on the pair ``(y, target)``."""
        return LossLayer(self)


@frozen
class LossLayer(Layer):
    """A loss as a layer: a pair ``(y, target)`` in, the value out; made by ``as_layer``.

    The input's gradient is the pair ``(gy, gtarget)``; ``gtarget`` is ``None`` for a target of integers or booleans.

    Params   none.
    Cache    the loss's own, ``target``, and the value.
    Raises   ``ValueError`` when the input is not a pair, and what the loss raises.
    """

    loss: Loss

    @property
    def batch_dependent(self) -> bool:
        return True

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Cache]:
        require_no_params(self, params)
        y, target = self.pair(x)
        value, cache = self.loss.forward(y, target)
        return value, (cache, target, value)

    def pair(self, x: Any) -> tuple[Any, Any]:
        """Return x, which must be a pair."""
        if not isinstance(x, tuple) or len(x) != 2:
            raise value_error(self, "x must be a pair (y, target)", x)
        return x

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, tuple[Tensor, Any]]:
        kept, target, value = cache
        check_gy(self, gy, value.shape, value)
        gtarget = target_gradient(self.loss, kept, target, gy)
        return params, (self.loss.backward(kept, gy), gtarget)

    def __repr__(self) -> str:
        return f"({self.loss!r}).as_layer()" if self.loss.is_sum else f"{self.loss!r}.as_layer()"


def is_floating(target: Any) -> bool:
    """Tell whether a target is floating, or a tree with a floating leaf."""
    if isinstance(target, Tensor):
        return target.is_floating_point()
    return any([isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree.leaves(target)])  # noqa: C419


def target_gradient(loss: Loss, cache: Cache, target: Any, g: Any) -> Any:
    """Return the gradient of a target in its structure, with ``None`` for what is not floating."""
    return loss.target_grad(cache, g) if is_floating(target) else tree.map(lambda _: None, target)


@frozen
class ElementwiseLoss(Loss):
    """A loss with one term ℓ(y, t) for each element; y and target have one shape.

    A subclass defines ``cache``, ``loss``, ``dloss_dy`` and ``dloss_dt``. They see float32 in place of half precision: the value
    and the gradients are rounded once.
    """

    reduction: str = field(default="mean", validator=reductions)

    @abstractmethod
    def cache(self, y: Tensor, t: Tensor) -> Any:
        """Return the cache, from which all the others are computed."""

    @abstractmethod
    def loss(self, kept: Any) -> Tensor:
        """Return ℓ, element by element."""

    @abstractmethod
    def dloss_dy(self, kept: Any, c: Factor) -> Tensor:
        """Return c ∂ℓ/∂y; c is a number, or a tensor: 0-d, or of y's shape."""

    @abstractmethod
    def dloss_dt(self, kept: Any, c: Factor) -> Tensor:
        """Return c ∂ℓ/∂t."""

    def weight_of(self, target: Tensor) -> float | Tensor:
        return target.numel() if self.reduction == "mean" else rows_of(target)

    def total(self, kept: Any, c: Factor) -> Tensor:
        """Return c Σ ℓ; a loss overrides it where the terms themselves can be saved."""
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


def reduction_scale(reduction: str, y: Tensor) -> Factor:
    """Return by what the sum of the terms of ``y`` is multiplied; NaN where there is nothing to take the mean of."""
    if reduction == "mean":
        return kernels.factor(y.numel(), y)
    if reduction == "none":
        return 1.0
    return kernels.factor(y.shape[0] if reduction == "batch" and y.dim() else 1, y)


def rows_of(target: Any) -> int:
    """Return the length of the first axis; 1 without any."""
    leaf = next(iter(tree.leaves(target)), None)
    return leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else 1


def fitting_target(loss: Loss, y: Tensor, target: Tensor) -> Tensor:
    """Return the target in the dtype of y; it must have the shape of y, and nothing is broadcast."""
    require_floating(loss, y, target)
    if y.shape != target.shape:
        raise value_error(loss, f"target must have the shape of y, {tuple(y.shape)}", f"shape {tuple(target.shape)}")
    if y.dtype == target.dtype:
        return target
    if target.is_floating_point() or target.is_complex():
        raise value_error(loss, f"target must have the dtype of y, {y.dtype}, or hold integers or booleans", str(target.dtype))
    return target.to(y.dtype)


def require_floating(loss: Loss, y: object, target: object) -> None:
    """Refuse a y that is not a floating tensor, and a target that is not a tensor."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise value_error(loss, "y must be a floating tensor", y)
    if not isinstance(target, Tensor):
        raise value_error(loss, "target must be a tensor", target)
    if target.layout is not strided or target.is_nested or y.layout is not strided or y.is_nested:
        raise value_error(loss, "y and target must be dense tensors", f"{describe(y)} and {describe(target)}")
