"""Rearrangement of axes: split, permuted and joined as described by a pattern of named axes."""

import functools
import math
import re
from abc import abstractmethod
from typing import Any, ClassVar

from attrs import Factory, field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, kind_of, require_floating
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import is_whole, value_error
from funcnet.kernels.tracing import is_eager
from funcnet.layers.shape.reshaping import SingleRule
from funcnet.value import frozen

Side = tuple[tuple[str, ...], ...]
"""One side of a pattern: for each axis the names joined in it, and no name for an axis of size 1."""

Plan = tuple[tuple[int, ...], ...]
"""The shapes and axis orders that lead from x to y: first the shape of x, last the shape of y."""

REST = "..."
_AXIS = re.compile(r"\(([\w\s]*)\)|(\.\.\.|\w+)")


def _parse_side(text: str) -> Side:
    found = [match[1].split() if match[2] is None else [match[2]] for match in _AXIS.finditer(text)]
    return tuple([tuple([name for name in names if name != "1"]) for names in found])


def names_in(side: Side) -> list[str]:
    """Return the names of a side, in order."""
    return [name for axis in side for name in axis]


def read_pattern(pattern: Any) -> tuple[Side, ...]:
    """Return the two sides of a pattern; ``()`` for an invalid one, or if a side names an axis twice."""
    texts = pattern.split("->") if isinstance(pattern, str) else []
    sides = tuple(map(_parse_side, texts))
    readable = len(texts) == 2 and not any(_AXIS.sub("", text).strip() for text in texts)
    return sides if readable and all(len(set(names_in(side))) == len(names_in(side)) for side in sides) else ()


def _parse_pattern(layer: Any) -> tuple[Side, ...]:
    """Return the two sides of the layer's pattern, parsed only once: compiled code cannot search text."""
    sides = read_pattern(layer.pattern)
    if not sides or sorted(names_in(sides[0])) != sorted(names_in(sides[1])):
        rule = 'pattern must have two sides, such as "n (h w) c -> n c h w", that name the same axes once each'
        raise value_error("rearrange", rule, repr(layer.pattern))
    return sides


class Patterned(SingleRule):
    """Base of ``rearrange``, ``Reduce`` and ``Repeat``: a layer with a pattern."""

    __slots__ = ()

    rule = "x must have the axes on the left, each with at most one unknown size"

    label: ClassVar[str]
    """The name in errors about the pattern and the sizes."""

    pattern: str
    sizes: tuple[tuple[str, int], ...]
    _both: tuple[Side, ...]

    @property
    def batch_dependent(self) -> bool:
        left, right = self._both
        return left[:1] != right[:1] or not left or len(left[0]) != 1

    @abstractmethod
    def planned(self, shape: Shape) -> Plan:
        """Compute the shapes and orders of axes for an x of this shape."""

    def plan(self, x: Tensor) -> Plan:
        """Return the shapes and orders of axes for x; eager mode caches them by shape, since computing them takes about 20 µs."""
        shape = tuple(x.shape)
        return _cached_plan(self, shape) if is_eager() else self.planned(shape)

    def _check_sizes(self) -> None:
        names = {name for side in self._both for name in names_in(side)} - {REST}
        if not isinstance(self.sizes, tuple) or not all(isinstance(one, tuple) and len(one) == 2 for one in self.sizes):
            raise value_error(self.label, "sizes must be a tuple of pairs, each of a name and a size", repr(self.sizes))
        if not all(name in names and is_whole(n) and n >= 1 for name, n in self.sizes):
            rule = f"sizes must be whole numbers of at least 1, for names in {self.pattern!r}"
            raise value_error(self.label, rule, ", ".join(f"{name}={n!r}" for name, n in self.sizes))

    def _merged_lengths(self, shape: Shape) -> tuple[dict[str, int], dict[str, Shape]]:
        """Return the length of each name, with ``...`` as one axis, and the sizes of the axes that ``...`` matches."""
        lengths = self._lengths(shape, self._all_axes(self._both[0], len(shape)))
        rest = tuple([lengths[f"{REST}{i}"] for i in range(len(shape) - len(self._both[0]) + 1) if f"{REST}{i}" in lengths])
        return lengths | {REST: math.prod(rest)}, {REST: rest}

    def _all_axes(self, side: Side, dims: int) -> Side:
        """Return a side with ``...`` replaced by numbered names, for an x with ``dims`` axes."""
        count = dims - len(self._both[0]) + 1
        rest = [(f"{REST}{i}",) for i in range(count)]
        return tuple([axis for given in side for axis in (rest if given == (REST,) else [given])])

    def _lengths(self, shape: Shape, left: Side) -> dict[str, int]:
        """Return the length of each named axis."""
        lengths = dict(self.sizes)
        for axis, n in zip(left, shape, strict=True):
            unknown = [name for name in axis if name not in lengths]
            known = math.prod([lengths[name] for name in axis if name in lengths])
            if len(unknown) > 1 or n % known or (not unknown and n != known):
                raise Misfit
            lengths |= dict.fromkeys(unknown, n // known)
        return lengths


@functools.lru_cache(maxsize=1024)
def _cached_plan(layer: Patterned, shape: Shape) -> Plan:
    return layer.planned(shape)


def order_among(names: list[str], of: list[str]) -> tuple[int, ...]:
    """Return the positions of names in a list."""
    return tuple([of.index(name) for name in names])


def inverse_of(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order that permutes axes back."""
    return tuple([order.index(i) for i in range(len(order))])


@frozen
class Rearrange(Patterned):
    """Split, reorder and join axes by the names of a pattern; built by ``rearrange``.

        y  = x, split into the axes on the left, permuted, and joined as on the right
        gx = gy, split, permuted back and joined

    Args:
        pattern: The axes of x and of y by name.
        sizes: Sizes of axes, as a tuple of pairs of a name and a number.

    Shape:
        x (...), with the axes on the left side → y (...), with the axes on the right side

    Cache:
        The shapes and orders of axes, and an empty tensor of the dtype of x.

    Raises:
        ValueError: If the sides do not name the same axes, or x does not match the axes and sizes of the pattern.

    References:
        Rogozhnikov 2022; patterns as in ``einops.rearrange``.
    """

    label = "rearrange"

    pattern: str
    sizes: tuple[tuple[str, int], ...] = ()

    _both: tuple[Side, ...] = field(init=False, eq=False, default=Factory(_parse_pattern, takes_self=True))

    def __attrs_post_init__(self) -> None:
        self._check_sizes()

    def planned(self, shape: Shape) -> Plan:
        left, right = [self._all_axes(side, len(shape)) for side in self._both]
        lengths = self._lengths(shape, left)
        names = names_in(left)
        order = order_among(names_in(right), names)
        split = tuple([lengths[name] for name in names])
        y = tuple([math.prod([lengths[name] for name in axis]) for axis in right])
        return shape, split, order, tuple([split[i] for i in order]), inverse_of(order), y

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Plan, Tensor]]:
        plan = self.plan(require_floating(self, params, x))
        _, split, order, _, _, of = plan
        return x.reshape(split).permute(order).reshape(of), (plan, kind_of(x))

    def vjp(self, params: Params, cache: tuple[Plan, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        (shape, _, _, permuted, back, of), kind = cache
        return params, check_gy(self, gy, of, kind).reshape(permuted).permute(back).reshape(shape)

    def __repr__(self) -> str:
        return call_of("rearrange", self.sizes, self.pattern)


def call_of(name: str, sizes: tuple[tuple[str, int], ...], *words: str) -> str:
    """Return the call that builds a layer with a pattern, as source code."""
    return f"{name}({', '.join([*map(repr, words), *[f'{axis}={n}' for axis, n in sizes]])})"


def rearrange(pattern: str, **sizes: int) -> Rearrange:
    """Split, reorder and join axes by name: ``rearrange("n (h w) c -> n c h w", h=4)``.

        y  = x, split into the axes on the left, permuted, and joined as on the right
        gx = gy, split, permuted back and joined

    This example turns x (N, T, C), T = h w, into y (N, C, h, w).

    Args:
        pattern: The axes of x and of y by name. Names in parentheses share one axis, ``1`` is an axis of size 1, and ``...``
            matches all axes without a name.
        sizes: Sizes of axes by keyword; within parentheses on the left, all sizes except one are required.

    Shape:
        x (...), with the axes on the left side → y (...), with the axes on the right side

    Returns:
        A layer.

    Raises:
        ValueError: If the sides do not name the same axes.

    References:
        Rogozhnikov 2022; patterns as in ``einops.rearrange``.

    >>> import torch
    >>> rearrange("n (h w) c -> n c h w", h=4)({}, torch.ones(2, 12, 5)).shape
    torch.Size([2, 5, 4, 3])
    """
    return Rearrange(pattern, tuple(sizes.items()))
