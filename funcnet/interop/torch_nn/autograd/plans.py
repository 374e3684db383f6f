"""Plans: a net as a function from one row of tensors to another, forward and backward."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define
from torch import Tensor

from funcnet.contract import Layer, Params, Rng
from funcnet.flattening import Tree
from funcnet.interop.torch_nn.autograd.rows import Memory, Row, Shape, Structure, to_row
from funcnet.interop.torch_nn.lifting.lifted import Lifted
from funcnet.walking import walk


@define(eq=False)
class Result:
    """The structure of a net's results, without their tensors.

    Args:
        y: The shape of y.
        cache: The shape of the cache.
        places: The places of the updated statistics in the row.
        kinds: Shape, dtype and device of each leaf if y has several; ``None`` for leaves without a gradient.
        count: Number of leaves of y.
    """

    y: Shape
    cache: Shape
    places: list[int]
    kinds: list[Any]
    count: int

    def gy(self, gys: Row) -> Tree:
        """Build gy, with zeros for leaves without a gradient."""
        return self.y.write([_zeros(kind) if g is None else g for g, kind in zip(gys, self.kinds, strict=True)])


def _kinds(ys: Row) -> list[Any]:
    if len(ys) == 1:
        return [None]
    return [(y.shape, y.dtype, y.device) if isinstance(y, Tensor) and y.is_floating_point() else None for y in ys]


def _zeros(kind: Any) -> Tensor | None:
    return None if kind is None else torch.zeros(kind[0], dtype=kind[1], device=kind[2])


def is_inline(net: Layer) -> bool:
    """Return whether compiled code must trace a net's derivative inline, because ``lift`` fills a module at each call.

    Dynamo does not permit these writes within an operation that has a custom derivative.
    """
    return any(isinstance(layer, Lifted) for _, layer in walk(net)) and not net.surrogate


@define(eq=False)
class Plan:
    """A net, and the order of its arguments in a row: the leaves of params, those of x, and the key.

    Args:
        net: The net.
        params: The structure of params.
        x: The shape of x.
        count: Number of leaves of params.
        stats: The places of the leaves that ``update_stats`` can change.
        caches: The stored structure of the cache.
        casts: The net in each dtype of autocast, from ``casts_of``, because compiled code cannot create values.
        is_inline: Whether compiled code differentiates the net with its own rules; see ``is_inline``.
    """

    net: Layer
    params: Structure
    x: Shape
    count: int
    stats: tuple[int, ...] = ()
    caches: Memory | None = None
    casts: Any = None
    is_inline: bool = False

    def in_dtype(self, dtype: torch.dtype) -> "Plan":
        """Return the plan of the net cast to a dtype of autocast, with the same arguments."""
        return Plan(self.casts[dtype], self.params, self.x, self.count, self.stats, is_inline=self.is_inline)

    def with_x(self, x: Shape) -> "Plan":
        """Return the plan for an x of another shape."""
        return Plan(self.net, self.params, x, self.count, self.stats, self.caches, self.casts, self.is_inline)

    def arguments(self, row: Row) -> tuple[Params, Any, Rng]:
        """Return params, x and the key."""
        return self.params.write(row[: self.count]), self.x.write(row[self.count : -1]), row[-1]

    def forward(self, row: Row) -> tuple[Result, list[Any], list[Any], list[Any]]:
        """Apply the net; return the result, and the tensors of y, of updated statistics, and of the cache."""
        params, x, rng = self.arguments(row)
        y, cache = self.net.apply(params, x, rng)
        moved = self.params.read(self.net.update_stats(params, cache)) if self.stats else row
        places = [i for i in self.stats if moved[i] is not row[i]]
        of_y, ys = to_row(y)
        of_cache, kept = to_row(cache) if self.caches is None else self.caches.to_row(cache)
        return Result(of_y, of_cache, places, _kinds(ys), len(ys)), ys, [moved[i] for i in places], kept

    def gradients(self, result: Result, row: Row, kept: Row, gys: Row, needs: Sequence[bool]) -> list[Any]:
        """Return the gradients of the tensors in the row; ``None`` if one is not needed or does not exist."""
        params, x, _ = self.arguments(row)
        return self.backward(params, x, result.cache.write(kept), result.gy(gys), needs)

    def backward(self, params: Params, x: Any, cache: Any, gy: Any, needs: Sequence[bool]) -> list[Any]:
        """Call the method that computes exactly the needed gradients."""
        gparams, gx = None, None
        if not any(needs[self.count :]):
            gparams = self.net.grads(params, cache, gy)
        elif not any(needs[: self.count]):
            gx = self.net.input_grad(params, cache, gy)
        else:
            gparams, gx = self.net.vjp(params, cache, gy)
        found = [None] * self.count if gparams is None else self.params.read(gparams)
        found += [None] * (len(needs) - 1 - self.count) if gx is None else self.x.structure.read(gx)
        return [g if need else None for g, need in zip([*found, None], needs, strict=True)]
