"""The base of losses whose terms have another shape than y, or whose y is a pair or a triple, and their checks.

Many of them have one term ℓ for each row. The reductions apply to the terms.
"""

import re
from abc import abstractmethod
from typing import Any

from torch import Tensor, strided

from funcnet import tree
from funcnet.checks import kind_of
from funcnet.contract import Cache
from funcnet.errors import describe, value_error
from funcnet.kernels import losses as kernels
from funcnet.kernels.elementwise_losses import has_no_sign, has_others_than_signs
from funcnet.kernels.tracing import can_look_at
from funcnet.losses.loss import Factor, Loss, fitting_target, reduction_scale
from funcnet.precision import in_single, rounded
from funcnet.value import frozen


@frozen
class TermLoss(Loss):
    """A loss with terms ℓ of any shape, computed in float32 or wider; y is a tensor, or a tuple of tensors of the same dtype.

    A subclass has a field ``reduction`` and defines ``cache``, ``loss`` and ``dloss_dy``; if the target has a gradient, it also
    defines ``dloss_dt``.
    """

    @abstractmethod
    def cache(self, y: Any, target: Any) -> Any:
        """Check y and the target, and return the cache, in float32 or wider.

        Args:
            y: The output.
            target: The target.
        """

    @abstractmethod
    def loss(self, kept: Any) -> Tensor:
        """Return the terms ℓ.

        Args:
            kept: The return value of ``cache``.
        """

    @abstractmethod
    def dloss_dy(self, kept: Any, g: Factor) -> Any:
        """Return the gradient of y from the gradient of ℓ.

        Args:
            kept: The return value of ``cache``.
            g: Gradient of ℓ: a number, or a tensor, 0-d or in the shape of ℓ.
        """

    def dloss_dt(self, kept: Any, g: Factor) -> Tensor | None:
        """Return the gradient of the target; ``None`` if it has none.

        Args:
            kept: The return value of ``cache``.
            g: Gradient of ℓ: a number, or a tensor, 0-d or in the shape of ℓ.
        """
        return None

    def scale(self, kept: Any, terms: Tensor) -> Factor:
        """Return the factor of the sum of the terms for the reduction; 1 for "none".

        Args:
            kept: The return value of ``cache``.
            terms: The terms ℓ.
        """
        return reduction_scale(self.reduction, terms)

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Cache]:
        return self.value_of(y, self.cache(y, target))

    def value_of(self, y: Any, kept: Any) -> tuple[Tensor, Cache]:
        """Return the value, and the cache for ``backward``.

        Args:
            y: The output.
            kept: The return value of ``cache``.
        """
        kind, terms = kind_of(y[0] if isinstance(y, tuple) else y), self.loss(kept)
        c = self.scale(kept, terms)
        value = terms if self.reduction == "none" else kernels.weighted_sum(terms, c)
        return rounded(value, kind), (kept, c, kind)

    def backward(self, cache: Cache, g: Tensor | None = None) -> Any:
        kept, c, kind = cache
        gy = self.dloss_dy(kept, _scale_gradient(c, g))
        return tuple([rounded(one, kind) for one in gy]) if isinstance(gy, tuple) else rounded(gy, kind)

    def target_grad(self, cache: Cache, g: Tensor) -> Tensor | None:
        kept, c, kind = cache
        gt = self.dloss_dt(kept, _scale_gradient(c, g))
        return None if gt is None else rounded(gt, kind)


def _scale_gradient(c: Factor, g: Factor | None) -> Factor:
    """Return g c. If c is 1, return g: in ``torch.func`` the derivative of a 0-d product would be in float64."""
    if g is None:
        return c
    g = in_single(g) if isinstance(g, Tensor) else g
    return g if isinstance(c, float) and c == 1 else g * c


def over_classes(g: Factor) -> Factor:
    """Append an axis for the classes to a gradient of one number per row; a scalar is unchanged."""
    return g.unsqueeze(-1) if isinstance(g, Tensor) and g.dim() else g


def require_alike(loss: Loss, y: Any, names: str) -> Any:
    """Return y in float32 or wider; it must be a tuple of dense floating tensors of the same shape, dtype and device.

    ``names`` names its parts in error messages, like ``(x1, x2)``.
    """
    count = names.count(",") + 1
    if not isinstance(y, tuple) or len(y) != count or not all(map(is_dense, y)):
        rule = f"y must be {names}, dense floating tensors" if count > 1 else "y must be a dense floating tensor"
        raise value_error(loss, rule, y if count > 1 else y[0])
    first = y[0]
    if any([one.shape != first.shape or one.dtype is not first.dtype or one.device != first.device for one in y[1:]]):  # noqa: C419
        came = " and ".join([f"{describe(one)} on {one.device}" for one in y])
        raise value_error(loss, f"{names[1:-1]} must have the same shape, dtype and device", came)
    return tuple([in_single(one) for one in y])


def is_dense(x: Any) -> bool:
    """Return whether x is a dense floating tensor."""
    return isinstance(x, Tensor) and x.is_floating_point() and not x.is_nested and x.layout is strided


def require_no_target(loss: Loss, target: Any) -> None:
    """Raise if there is a target: the structure of y determines which examples belong together."""
    if target is not None:
        raise value_error(loss, "target must be None", target)


def require_like(loss: Loss, y: Tensor, target: Any) -> Tensor:
    """Return the target in the dtype of y, in float32 or wider; it must have the shape of y, without broadcasting."""
    return in_single(fitting_target(loss, y, target))


def require_signs(loss: Loss, target: Tensor) -> None:
    """Raise unless the target holds signs: integers -1 and 1, or floating numbers other than 0 and NaN.

    Labels 0 and 1 are a common mistake that would otherwise train without an error. Values that cannot be read are not checked.
    The check takes 2.6 µs for 100 numbers.
    """
    if target.is_complex() or not target.dtype.is_signed:
        raise value_error(loss, "target must hold -1 and 1", str(target.dtype))
    if has_no_sign(target) if target.is_floating_point() else has_others_than_signs(target):
        raise value_error(loss, "target must hold -1 and 1", numbers_in(target))


def require_rows(loss: Loss, y: Any) -> Tensor:
    """Return y in float32 or wider; it must have the axes (N, classes) or (classes,)."""
    if not is_dense(y) or y.dim() not in (1, 2) or y.shape[-1] == 0:
        raise value_error(loss, "y must be a dense floating tensor with the axes (N, classes) or (classes,)", y)
    return in_single(y)


def require_labels(loss: Loss, y: Tensor, target: Any, shape: tuple[int, ...]) -> Tensor:
    """Return labels as int64; they must be integers of this shape on the device of y, which the kernels do not check."""
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex() or target.shape != shape:
        raise value_error(loss, f"target must be integer labels of shape {tuple(shape)}", target)
    if target.device != y.device:
        raise value_error(loss, f"target must be on the device of y, {y.device}", f"labels on {target.device}")
    return target.long()


def label_error(loss: Loss, classes: int, error: Exception) -> Exception:
    """Return an error that names the label if the kernel's error names an index out of bounds, else the kernel's error."""
    found = re.search(r"index (-?\d+) is out of bounds", str(error))
    return value_error(loss, f"every label must be from 0 to {classes - 1}", found[1]) if found else error


def numbers_in(x: Tensor) -> str:
    """Describe the range of a tensor's numbers, or the tensor itself if its numbers cannot be read."""
    if not can_look_at(x):
        return describe(x)
    low, high = x.aminmax()
    return f"numbers from {low.item():g} to {high.item():g}"


def row_count(target: Any) -> int:
    """Return the number of rows of a target with an axis of classes; 1 if that is its only axis."""
    leaf = next(iter(tree.leaves(target)), None)
    return leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() > 1 else 1
