"""Layers that compute masks: convert masks of ``torch.nn``, or join two masks.

Bool masks have no gradient. Nets converted from ``torch.nn`` contain these layers where a module calls attention.
"""

from typing import Any

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import flag, one_of, size
from funcnet.kernels.operands import unbroadcast
from funcnet.value import frozen


def _is_mask(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.is_nested and (x.dtype is torch.bool or x.is_floating_point())


def _fit_each_other(a: Tensor, b: Tensor) -> bool:
    """Return whether two masks can be broadcast together."""
    count = min(a.dim(), b.dim())
    pairs = zip(a.shape[a.dim() - count :], b.shape[b.dim() - count :], strict=True)
    return all([n == m or 1 in (n, m) for n, m in pairs])  # noqa: C419 (compiled code has no generators)


@frozen
class VisibleMask(Layer):
    """Convert a mask of ``torch.nn``, True for hidden keys, to a mask of ``MultiHeadAttention``, True for visible keys.

        y  = ¬x for a bool x,  y = x for a floating x
        gx = gy for a floating x

    Args:
        kind: ``"padding"`` for a ``key_padding_mask``, ``"attention"`` for an ``attn_mask``.
        num_heads: Number of heads; required for masks with 3 axes.
        hidden: Whether True in x means hidden, as in torch.nn. With ``False`` only the axes change, and x can also have the axes
            (N, heads, L, S), or broadcast to them.

    Shape:
        padding x (N, S) or (S,) → y (N, 1, 1, S) or (1, 1, S); attention x (L, S) or (N · heads, L, S) → y (L, S) or
        (N, heads, L, S)

    Cache:
        The shapes of x and y, and an empty tensor of their dtype.

    Raises:
        ValueError: If x has other axes, or is neither bool nor floating.

    References:
        ``torch.nn.MultiheadAttention``.

    >>> VisibleMask("padding")({}, torch.tensor([[False, False, True]])).tolist()
    [[[[True, True, False]]]]
    """

    kind: str = field(default="padding", validator=one_of("padding", "attention"))
    num_heads: int | None = field(default=None, validator=validators.optional(size))
    hidden: bool = field(default=True, validator=flag)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Shape, Shape, Tensor]]:
        require_no_params(self, params)
        shape = self._shape(x) if _is_mask(x) else None
        if shape is None:
            raise Misfit
        y = ~x if self.hidden and x.dtype is torch.bool else x
        return y.reshape(shape), (tuple(x.shape), shape, kind_of(x))

    def vjp(self, params: Params, cache: tuple[Shape, Shape, Tensor], gy: Any) -> tuple[Grads, Tensor | None]:
        shape, shape_of_y, like = cache
        if not like.is_floating_point():
            return params, None
        gx = like.new_zeros(shape) if gy is None else check_gy(self, gy, shape_of_y, like).reshape(shape)
        return params, gx

    def _shape(self, x: Tensor) -> Shape | None:
        """Return the shape of y; ``None`` for an x with other axes."""
        shape, count = tuple(x.shape), x.dim()
        if not self.hidden and (count == 4 or (count == 3 and shape[0] in (1, self.num_heads))):
            return shape
        if self.kind == "padding":
            return (*shape[:-1], 1, 1, shape[-1]) if count in (1, 2) else None
        if count == 3 and self.num_heads is not None and shape[0] % self.num_heads == 0:
            return (shape[0] // self.num_heads, self.num_heads, *shape[1:])
        return shape if count == 2 else None

    def complaint(self, x: Any) -> str | None:
        if not _is_mask(x):
            return "x must be a bool or floating tensor"
        heads = "heads" if self.num_heads is None else self.num_heads
        forms = "(N, S) or (S,)" if self.kind == "padding" else f"(L, S) or (N * {heads}, L, S)"
        more = "" if self.hidden else ", or broadcast to (N, heads, L, S)"
        return None if self._shape(x) else f"x must have the axes {forms}{more}"


@frozen
class JointMask(Layer):
    """Join two masks of ``MultiHeadAttention``: a key is visible if it is visible in both; floating masks are added.

        y  = a ∧ b for bool masks,  y = a + b for floating masks,  y = a, or -∞ where b is False
        ga = Σ gy over the axes along which a was broadcast; 0 where b is False; ``None`` for a bool a

    Shape:
        (a, b), masks that broadcast to (N, heads, L, S) → y with the axes of both

    Cache:
        The pair, not copied, and the shape of y.

    Raises:
        ValueError: If the masks do not broadcast together, or are floating with different dtypes.

    References:
        ``torch.nn.functional.multi_head_attention_forward``, which merges masks this way.

    >>> JointMask()({}, (torch.tensor([True, False]), torch.tensor([[True], [False]]))).tolist()
    [[True, False], [False, False]]
    """

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Shape]]:
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        a, b = x
        if a.dtype is b.dtype:
            y = a & b if a.dtype is torch.bool else a + b
        else:
            y = torch.where(a, b, -torch.inf) if a.dtype is torch.bool else torch.where(b, a, -torch.inf)
        return y, (a, b, tuple(y.shape))

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Shape], gy: Any) -> tuple[Grads, tuple[Any, Any]]:
        a, b, shape = cache
        return params, (self._grad(a, b, shape, gy), self._grad(b, a, shape, gy))

    def _grad(self, one: Tensor, other: Tensor, shape: Shape, gy: Any) -> Tensor | None:
        """Return the gradient of one mask; ``shape`` is the shape of y."""
        if not one.is_floating_point():
            return None
        if gy is None:
            return torch.zeros_like(one)
        check_gy(self, gy, shape, one)
        return unbroadcast(torch.where(other, gy, 0.0) if other.dtype is torch.bool else gy, tuple(one.shape))

    def complaint(self, x: Any) -> str | None:
        if not isinstance(x, tuple) or len(x) != 2 or not _is_mask(x[0]) or not _is_mask(x[1]):
            return "x must be a pair of bool or floating tensors"
        a, b = x
        if a.is_floating_point() and b.is_floating_point() and a.dtype is not b.dtype:
            return f"floating masks must have the same dtype, not {a.dtype} and {b.dtype}"
        return None if _fit_each_other(a, b) else "the masks must broadcast together"


@frozen
class FullMask(Layer):
    """Return a mask that hides nothing, on the device of another mask.

        y = True      gx = 0

    A decoder takes the mask of the memory before the mask of the target. This layer provides the first if a module has only the
    second.

    Shape:
        x (..., S), any mask → y (1, 1, 1, 1)

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x is neither bool nor floating.

    References:
        ``torch.nn.TransformerDecoder``, where a missing mask hides nothing.

    >>> FullMask()({}, torch.tensor([False, False])).tolist()
    [[[[True]]]]
    """

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        require_no_params(self, params)
        if not _is_mask(x):
            raise Misfit
        return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=x.device), x

    def vjp(self, params: Params, cache: Tensor, gy: Any) -> tuple[Grads, Tensor | None]:
        return params, torch.zeros_like(cache) if cache.is_floating_point() else None

    def complaint(self, x: Any) -> str | None:
        return None if _is_mask(x) else "x must be a bool or floating tensor"
