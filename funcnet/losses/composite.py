"""Composite losses Σ fᵢ ℓᵢ, with factors f and losses ℓ. Half precision is computed in float32; gradients are rounded once."""

from abc import abstractmethod
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from funcnet import tree
from funcnet.contract import Cache
from funcnet.errors import value_error
from funcnet.kernels.tracing import is_plain
from funcnet.losses.loss import Loss, rows_of, target_gradient
from funcnet.losses.parts import Weight
from funcnet.precision import HALF, in_single, rounded


class Composite(Loss):
    """Base of losses that combine others. A subclass names these losses, and selects the part of y and of the target for each."""

    __slots__ = ()

    _factors: tuple[float, ...]
    """The factor of each part."""

    @property
    def batch_dependent(self) -> bool:
        return any([loss.batch_dependent for _, loss in self.factors_and_losses()])  # noqa: C419

    @property
    def part_count(self) -> int:
        return len(self._factors)

    @abstractmethod
    def factors_and_losses(self) -> tuple[tuple[float, Loss], ...]:
        """Return the factor and the loss of each term."""

    @abstractmethod
    def pick(self, i: int, values: Any) -> Any:
        """Return the part of y or of the target that term i takes."""

    @abstractmethod
    def joined(self, gradients: list[Any]) -> Any:
        """Combine the gradients of the terms into the gradient of y, or of the target."""

    def require_inputs(self, y: Any, target: Any) -> None:
        """Raise if a term cannot pick its part of y or of the target."""

    def term(self, i: int, loss: Loss, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        """Return the values of term i, and its cache."""
        return loss.forward_parts(*in_full(self.pick(i, y), self.pick(i, target)))

    def forward_parts(self, y: Any, target: Any) -> tuple[tuple[Tensor, ...], Cache]:
        self.require_inputs(y, target)
        found = [self.term(i, loss, y, target) for i, (_, loss) in enumerate(self.factors_and_losses())]
        values = tuple([value for values, _ in found for value in values])
        return values, ([cache for _, cache in found], kinds_of(y), target, kinds_of(target))

    def forward(self, y: Any, target: Any) -> tuple[Tensor, Cache]:
        values, cache = self.forward_parts(y, target)
        value = total([one if f == 1 else one * one.new_full((), f) for f, one in zip(self._factors, values, strict=True)])
        return value if cache[1] is None else value.to(_widest(cache[1])), cache

    def backward(self, cache: Cache, g: Any = None) -> Any:
        g = in_single(g) if isinstance(g, Tensor) else g
        return self.backward_parts(cache, tuple([f if g is None else f * g for f in self._factors]))

    def backward_parts(self, cache: Cache, gs: tuple[Weight, ...]) -> Any:
        caches, of_y, _, _ = cache
        left = iter(gs)
        terms = zip(self.factors_and_losses(), caches, strict=True)
        found = [loss.backward_parts(kept, tuple(islice(left, loss.part_count))) for (_, loss), kept in terms]
        return as_given(self.joined(found), of_y)

    def target_grad(self, cache: Cache, g: Any) -> Any:
        caches, _, target, of_target = cache
        g = in_single(g) if isinstance(g, Tensor) else g
        terms = enumerate(zip(self.factors_and_losses(), caches, strict=True))
        found = [target_gradient(loss, kept, self.pick(i, target), f * g) for i, ((f, loss), kept) in terms]
        return as_given(self.joined(found), of_target)

    def weight_of(self, target: Any) -> Weight:
        """Return the weight on which all parts agree; parts without class weights or masks agree on the number of rows.

        Args:
            target: The target of the batch.

        Raises:
            ValueError: If the parts have different weights. ``evaluate``, ``fit`` and ``accumulate`` combine batches part by
                part, and ``parts(y, target)`` returns each value with its weight.
        """
        parts = self.part_list()
        weights = [part.weight_of(target) for part in parts]
        of_values = [weight for weight in weights if isinstance(weight, Tensor)]
        if not of_values and self.reduction != "mixed":
            return rows_of(target)
        if len(parts) > 1 and not _all_equal([w if isinstance(w, Tensor) else rows_of(target) for w in weights], parts):
            rule = "the parts must agree on the weight of a batch; parts(y, target) returns the weight of each"
            raise value_error(self, rule, f"different weights for {', '.join([part.name for part in parts])}")
        return of_values[0] if of_values else rows_of(target)


def factors_of(loss: Loss) -> tuple[float, ...]:
    """Return the factor of each part."""
    return tuple([part.factor for part in loss.part_list()])


def _all_equal(weights: list[Any], parts: Any) -> bool:
    """Return whether all parts are averaged with the same weight; ``False`` if the numbers cannot be read."""
    if len({part.reduction == "sum" for part in parts}) > 1:
        return False
    return all([not isinstance(w, Tensor) or is_plain(w) for w in weights]) and len({float(w) for w in weights}) == 1  # noqa: C419


def in_full(y: Any, target: Any) -> tuple[Any, Any]:
    """Return y and the target in float32 if both are in half precision. Different dtypes are kept: the loss raises for them."""
    if isinstance(y, Tensor) and y.dtype not in HALF:
        return y, target
    leaves = [leaf for leaf in tree.leaves((y, target)) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not leaves or not all([leaf.dtype in HALF and leaf.dtype is leaves[0].dtype for leaf in leaves]):  # noqa: C419
        return y, target
    return tree.map(in_single, y), tree.map(in_single, target)


def kinds_of(values: Any) -> Any:
    """Return empty tensors of the dtypes of a tree, for rounding its gradients; ``None`` without half precision."""
    leaves = (values,) if isinstance(values, Tensor) else tree.leaves(values)
    if not any([isinstance(leaf, Tensor) and leaf.dtype in HALF for leaf in leaves]):  # noqa: C419
        return None
    return tree.map(lambda leaf: leaf.new_empty(0), values)


def as_given(gradients: Any, kinds: Any) -> Any:
    """Round gradients to the dtypes of their leaves."""
    return gradients if kinds is None else tree.map(rounded, gradients, kinds)


def _widest(kinds: Any) -> torch.dtype:
    first: torch.dtype
    first, *rest = [leaf.dtype for leaf in tree.leaves(kinds) if leaf.is_floating_point()]
    for other in rest:
        first = torch.promote_types(first, other)
    return first


def total(values: list[Any]) -> Any:
    """Add up tensors, or trees of them."""
    first, *rest = values
    for one in rest:
        first = first + one if isinstance(first, Tensor) and isinstance(one, Tensor) else tree.add(first, one)
    return first
