"""Reduction and repetition with a pattern of named axes, in the syntax of ``rearrange``.

x (...) has the axes on the left side of the pattern, and y the axes on the right side.
"""

import math
from typing import Any

from attrs import Factory, field
from torch import Tensor

from funcnet.checks import check_gy, kind_of, require_dense_floating
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Shape
from funcnet.errors import one_of, value_error
from funcnet.layers.operands.extreme_reductions import Max, Min
from funcnet.layers.operands.reductions import Mean, Prod, Sum
from funcnet.layers.shape.rearrangement import (
    REST,
    Patterned,
    Plan,
    Side,
    call_of,
    inverse_of,
    names_in,
    order_among,
    read_pattern,
)
from funcnet.layers.shape.reshaping import Identity
from funcnet.value import frozen

_KINDS: dict[str, type[Sum | Mean | Max | Min | Prod]] = {"sum": Sum, "mean": Mean, "max": Max, "min": Min, "prod": Prod}


def _merge_sizes(sizes: Any, lengths: dict[str, int]) -> Any:
    """Join sizes given as pairs with sizes given by keyword; anything but a tuple is left for the validator to reject."""
    return (*sizes, *lengths.items()) if isinstance(sizes, tuple) else sizes


def _reduction_sides(layer: Any) -> tuple[Side, ...]:
    sides = read_pattern(layer.pattern)
    if not sides or not set(names_in(sides[1])) <= set(names_in(sides[0])):
        rule = 'pattern must have two sides, such as "n h w c -> n c", with each name on the right also on the left, only once'
        raise value_error("Reduce", rule, repr(layer.pattern))
    return sides


def _repetition_sides(layer: Any) -> tuple[Side, ...]:
    sides = read_pattern(layer.pattern)
    if not sides or not set(names_in(sides[0])) <= set(names_in(sides[1])):
        rule = 'pattern must have two sides, such as "n c -> n t c", with all names on the left also on the right, only once'
        raise value_error("Repeat", rule, repr(layer.pattern))
    return sides


def _inner(layer: Any) -> Layer:
    """Return the reduction over the axes that the right side leaves out; built in advance: compiled code cannot build layers."""
    left, right = map(names_in, layer._both)
    dims = tuple([i for i, name in enumerate(left) if name not in right])
    return _KINDS[layer.reduction](dims) if dims else Identity()


def _joint_shape(side: Side, lengths: dict[str, int], rest: dict[str, Shape]) -> Shape:
    """Return the sizes of the axes of a side, with ``...`` replaced by the axes it matches."""
    axes = [rest[axis[0]] if axis == (REST,) else (math.prod([lengths[name] for name in axis]),) for axis in side]
    return tuple([n for sizes in axes for n in sizes])


@frozen
class Reduce(Patterned):
    """Reduce the axes that the right side of a pattern leaves out: ``Reduce("n h w c -> n c", "mean")``.

        y  = the sum, mean, max, min or prod of x over the axes that only the left side names
        gx = gy through the gradient of that reduction: repeated for a sum, repeated and divided by n for a mean

    Names in parentheses share one axis of x: ``Reduce("n (t k) c -> n t c", "max", k=2)`` pools neighbouring steps. ``...``
    matches any number of axes and ``1`` an axis of size 1, as in ``rearrange``.

    Args:
        pattern: The axes of x and of y by name.
        reduction: ``"sum"``, ``"mean"``, ``"max"``, ``"min"`` or ``"prod"``; the gradients are the same as in ``Sum``, ``Mean``,
            ``Max``, ``Min`` and ``Prod``.
        sizes: Sizes of axes, as a tuple of pairs of a name and a number.
        lengths: Sizes of axes by keyword: ``k=2``.

    Shape:
        x (...), with the axes on the left side → y (...), with the axes on the right side

    Cache:
        The cache of the reduction, the shapes and orders of axes, and an empty tensor of the dtype of x.

    Raises:
        ValueError: If the right side has names that the left side lacks, or x does not match the axes and sizes of the pattern.

    References:
        Rogozhnikov 2022; patterns as in ``einops.reduce``.

    >>> import torch
    >>> Reduce("n h w c -> n c", "mean")({}, torch.ones(2, 5, 5, 3)).shape
    torch.Size([2, 3])
    """

    label = "Reduce"

    pattern: str
    reduction: str = field(validator=one_of(*_KINDS))
    sizes: tuple[tuple[str, int], ...] = ()

    _both: tuple[Side, ...] = field(init=False, eq=False, default=Factory(_reduction_sides, takes_self=True))
    _inner: Layer = field(init=False, eq=False)

    def __init__(self, pattern: str, reduction: str, sizes: tuple[tuple[str, int], ...] = (), **lengths: int) -> None:
        self.__attrs_init__(pattern, reduction, _merge_sizes(sizes, lengths))  # type: ignore[attr-defined]

    def __attrs_post_init__(self) -> None:
        self._check_sizes()
        object.__setattr__(self, "_inner", _inner(self))

    def planned(self, shape: Shape) -> Plan:
        lengths, rest = self._merged_lengths(shape)
        left, right = map(names_in, self._both)
        order = order_among(right, [name for name in left if name in right])
        split, permuted = tuple([lengths[name] for name in left]), tuple([lengths[name] for name in right])
        return shape, split, order, permuted, inverse_of(order), _joint_shape(self._both[1], lengths, rest)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        plan = self.plan(require_dense_floating(self, params, x))
        _, split, order, _, _, of = plan
        y, inner = self._inner.apply({}, x.reshape(split))
        return y.permute(order).reshape(of), (inner, plan, kind_of(x))

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        inner, (shape, _, _, permuted, back, of), kind = cache
        g = check_gy(self, gy, of, kind).reshape(permuted).permute(back)
        return params, self._inner.input_grad({}, inner, g).reshape(shape)

    def __repr__(self) -> str:
        return call_of("Reduce", self.sizes, self.pattern, self.reduction)


@frozen
class Repeat(Patterned):
    """Repeat x along the axes that only the right side of a pattern names: ``Repeat("n c -> n t c", t=3)``.

        y  = x, repeated along the new axes
        gx = Σ gy over the new axes

    Names in parentheses share one axis: ``Repeat("n c h w -> n c (h a) (w b)", a=2, b=2)`` doubles the size of images.

    Args:
        pattern: The axes of x and of y by name.
        sizes: Sizes of axes, as a tuple of pairs of a name and a number. New axes need a size.
        lengths: Sizes of axes by keyword: ``t=3``.

    Shape:
        x (...), with the axes on the left side → y (...), with the axes on the right side

    Cache:
        The shapes and orders of axes, and an empty tensor of the dtype of x.

    Raises:
        ValueError: If the right side lacks a name of the left side, a new axis has no size, or x does not match the axes and
            sizes of the pattern.

    References:
        Rogozhnikov 2022; patterns as in ``einops.repeat``.

    >>> import torch
    >>> Repeat("n c -> n t c", t=3)({}, torch.ones(2, 4)).shape
    torch.Size([2, 3, 4])
    """

    label = "Repeat"

    pattern: str
    sizes: tuple[tuple[str, int], ...] = ()

    _both: tuple[Side, ...] = field(init=False, eq=False, default=Factory(_repetition_sides, takes_self=True))

    def __init__(self, pattern: str, sizes: tuple[tuple[str, int], ...] = (), **lengths: int) -> None:
        self.__attrs_init__(pattern, _merge_sizes(sizes, lengths))  # type: ignore[attr-defined]

    def __attrs_post_init__(self) -> None:
        self._check_sizes()
        left, right = map(names_in, self._both)
        unsized = [name for name in right if name not in left and name not in dict(self.sizes)]
        if unsized:
            raise value_error("Repeat", f"the new axes must have sizes, such as {unsized[0]}=2", repr(self.pattern))

    def planned(self, shape: Shape) -> Plan:
        lengths, rest = self._merged_lengths(shape)
        left, right = map(names_in, self._both)
        order = order_among([name for name in right if name in left], left)
        thin = tuple([lengths[name] if name in left else 1 for name in right])
        new = tuple([i for i, name in enumerate(right) if name not in left])
        split, whole = tuple([lengths[name] for name in left]), tuple([lengths[name] for name in right])
        return shape, split, order, thin, whole, new, inverse_of(order), _joint_shape(self._both[1], lengths, rest)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        plan = self.plan(require_dense_floating(self, params, x))
        _, split, order, thin, whole, _, _, of = plan
        return x.reshape(split).permute(order).reshape(thin).expand(whole).reshape(of), (plan, kind_of(x))

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        (shape, _, _, _, whole, new, back, of), kind = cache
        g = check_gy(self, gy, of, kind).reshape(whole)
        g = g.sum(new) if new else g
        return params, g.permute(back).reshape(shape)

    def __repr__(self) -> str:
        return call_of("Repeat", self.sizes, self.pattern)
