"""The contract of losses: a frozen value that compares an output y with its target t and has a gradient.

    loss(y, target) -> value
    loss.value_and_grad(y, target) -> (value, gy)
    loss.as_layer()                                  a layer on the pair (y, target), whose vjp returns both gradients
    loss.weight_of(target) -> w                      the weight of a batch in a mean over batches

The first three share one forward and one backward. A loss has terms ℓ, one for each element of y (``CrossEntropy``: one for each
label). ``reduction`` says how they are combined. The value has the unit of ℓ, and the shape () except with "none":

    "mean"    value = Σ ℓ / n, over all n terms                 NaN without terms, as in torch
    "sum"     value = Σ ℓ                                       0 without terms
    "batch"   value = Σ ℓ / N, N the length of axis 0           NaN for an empty batch; N = 1 for a sample without a batch axis
    "none"    value = ℓ, and ``value_and_grad`` returns the gradient of Σ ℓ

Losses can be added and scaled (``MSE() + 0.1 * L1()``, see ``losses.sums``). ``losses_of`` is the loss of a net with named
outputs, and ``weighted`` adds weights and masks for rows or terms.

A custom loss subclasses ``Loss`` (two methods, three with a gradient of the target) or ``ElementwiseLoss`` (four one-liners).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, strided

from funcnet import tree
from funcnet.checks import check_gy, require_no_params
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import describe, is_number, one_of, value_error
from funcnet.explanations import explain_loss_error, raise_explained
from funcnet.kernels import losses as kernels
from funcnet.losses.parts import Summand
from funcnet.value import frozen

Factor = Tensor | float

HOOKS = ("forward", "backward", "cache", "loss", "total", "dloss_dy")
"""The hooks that compute value and gradient. A class that overrides one no longer uses an inherited ``unchecked``."""

reductions = one_of("mean", "sum", "none", "batch")
"""Validate a field ``reduction``."""


def _nonnegative(value: object) -> bool:
    return is_number(value) and value >= 0  # type: ignore[operator]  # it is a number


def weights(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be ``None`` or a tuple of finite, non-negative numbers."""
    if got is not None and not (isinstance(got, tuple) and got and all(map(_nonnegative, got))):
        rule = f"{attribute.name} must be None or a tuple of finite numbers of at least 0"
        raise value_error(type(value).__name__, rule, repr(got))


def weight_or_weights(value: Any, attribute: Any, got: Any) -> None:
    """Validate a field that must be ``None``, a finite, non-negative number, or a tuple of such numbers."""
    if not _nonnegative(got) and not (got is None or (isinstance(got, tuple) and got and all(map(_nonnegative, got)))):
        rule = f"{attribute.name} must be None, a finite number of at least 0, or a tuple of such numbers"
        raise value_error(type(value).__name__, rule, repr(got))


class Loss(Summand):
    """The base of losses: a frozen value with ``forward`` and ``backward``.

        value = Σ ℓ c                 c = 1/n for "mean", 1 for "sum", 1/N for "batch"
        gy    = g c ∂ℓ/∂y             gt = g c ∂ℓ/∂t, g the gradient of the value

    ``loss + other``, ``loss - other``, ``2 * loss``, ``loss / 3``, ``-loss`` and ``sum([...])`` are losses too. A subclass has a
    field ``reduction``.

    Raises:
        ValueError: From the constructor if ``reduction`` is unknown or a number is outside its bounds; from a call if y is not a
            dense floating tensor or the target does not fit y. The target is never broadcast.

    >>> import torch
    >>> from funcnet.losses.regression import MSE
    >>> MSE().value_and_grad(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    (tensor(2.), tensor([0., 2.]))
    """

    __slots__ = ()

    mean_of_terms: ClassVar[bool] = True
    """Whether ``"mean"`` is the mean of the terms of ``"none"``: only then can ``weighted`` weight a mean."""

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        """Return the gradient of a floating target; ``None`` if the loss has none.

        Args:
            cache: The cache that ``forward`` returned.
            g: Gradient of the value.
        """
        return None

    def __call__(self, y: Any, target: Any) -> Tensor:
        """Return the value only."""
        try:
            return self.forward(y, target)[0]
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def value_and_grad(self, y: Any, target: Any) -> tuple[Tensor, Any]:
        """Return the value and the gradient of y: ``(value, gy)``.

        Args:
            y: The output of a net.
            target: The target, in the form that the loss takes.
        """
        try:
            value, cache = self.forward(y, target)
            return value, self.backward(cache)
        except Exception as error:
            raise_explained(explain_loss_error(self, y, target, error), error)

    def unchecked(self, y: Tensor, target: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Return ``value_and_grad`` without its checks, for arguments like these; ``None`` by default.

        The arguments have passed all checks. They are dense tensors in main memory with dtype float32, float64 or int64, in eager
        mode. The result must equal that of ``value_and_grad`` bit for bit.

        Args:
            y: An example of the outputs to come.
            target: An example of the targets to come.
        """
        return None

    def weight_of(self, target: Any) -> float | Tensor:
        """Return the weight w of a batch in a mean over batches: Σ w value / Σ w is the value of all rows.

        It is the divisor of the reduction; by default the number of rows. A 0-d tensor is returned if it depends on the entries
        of ``target``. Values of ``reduction="sum"`` are added up without weights.

        Args:
            target: The target of the batch.
        """
        return rows_of(target)

    def term_weights(self, target: Any) -> Tensor | None:
        """Return the weight of each term in the mean, in the shape of the terms; ``None`` if all weights are 1.

        By default this is ``weight_of`` of each entry of a target that has one label per term.

        Args:
            target: The target of a batch.
        """
        of_mean = (self if self.reduction == "mean" else self.with_reduction("mean")).weight_of
        if not isinstance(target, Tensor) or not isinstance(of_mean(target), Tensor):
            return None
        counts: Any = torch.func.vmap(of_mean)(target.reshape(-1, 1))
        return counts.reshape(target.shape)  # type: ignore[no-any-return]

    def over_y(self, terms: Tensor, leaf: Tensor) -> Tensor | None:
        """Reshape a tensor of the terms' shape to broadcast over a leaf of y or of the target; ``None`` if no shape fits.

        By default a loss has one term for each element or each row (N, ...) of the leaf, or it has reduced the axis of the
        classes or features: axis 1, or axis 0 of a vector.

        Args:
            terms: A tensor in the shape of the terms.
            leaf: A tensor of y or of the target.
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
    """A loss as a layer, from a pair ``(y, target)`` to the value; made by ``as_layer``.

        y  = loss(y, target)
        gx = (gy ∂loss/∂y, gy ∂loss/∂target)        ``None`` for a target of integers or booleans

    Args:
        loss: The loss.

    Shape:
        (y, target) → the shape of the value: () except with ``reduction="none"``

    Cache:
        The cache of the loss, the target, and the value.

    Raises:
        ValueError: If the input is not a pair, and whenever the loss raises one.

    >>> from funcnet.losses.regression import L1
    >>> L1().as_layer()({}, (torch.tensor([3.0]), torch.tensor([1.0])))
    tensor(2.)
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
        """Return x if it is a pair, else raise."""
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
    """Return whether a target is floating, or is a tree with a floating leaf."""
    if isinstance(target, Tensor):
        return target.is_floating_point()
    return any([isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree.leaves(target)])  # noqa: C419


def target_gradient(loss: Loss, cache: Cache, target: Any, g: Any) -> Any:
    """Return the gradient of a target in its structure, with ``None`` for leaves that are not floating."""
    return loss.target_grad(cache, g) if is_floating(target) else tree.map(lambda _: None, target)


def reduction_scale(reduction: str, y: Tensor) -> Factor:
    """Return c, the factor of the sum of the terms of ``y``: NaN for the mean of no terms."""
    if reduction == "mean":
        return kernels.factor(y.numel(), y)
    if reduction == "none":
        return 1.0
    return kernels.factor(y.shape[0] if reduction == "batch" and y.dim() else 1, y)


def rows_of(target: Any) -> int:
    """Return the length of the first axis of the first leaf, or 1 if there is none."""
    leaf = next(iter(tree.leaves(target)), None)
    return leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else 1


def fitting_target(loss: Loss, y: Tensor, target: Tensor) -> Tensor:
    """Return the target in the dtype of y; it must have the shape of y, without broadcasting."""
    require_floating(loss, y, target)
    if y.shape != target.shape:
        raise value_error(loss, f"target must have the shape of y, {tuple(y.shape)}", f"shape {tuple(target.shape)}")
    if y.dtype == target.dtype:
        return target
    if target.is_floating_point() or target.is_complex():
        raise value_error(loss, f"target must have the dtype of y, {y.dtype}, or hold integers or booleans", str(target.dtype))
    return target.to(y.dtype)


def require_floating(loss: Loss, y: object, target: object) -> None:
    """Raise unless y is a dense floating tensor and the target a dense tensor."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        raise value_error(loss, "y must be a floating tensor", y)
    if not isinstance(target, Tensor):
        raise value_error(loss, "target must be a tensor", target)
    if target.layout is not strided or target.is_nested or y.layout is not strided or y.is_nested:
        raise value_error(loss, "y and target must be dense tensors", f"{describe(y)} and {describe(target)}")
