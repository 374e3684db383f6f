"""Embedding bags: integers select rows of a table, and each bag of integers is reduced to one row.

x (bags, integers per bag), w (num_embeddings, embedding_dim), y (bags, embedding_dim). An integer has no gradient: its gx is
``None``.
"""

from typing import Any

import torch
from attrs import field
from attrs.validators import optional
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit
from funcnet.contract import Grads, Params, Rng, Shape
from funcnet.errors import describe, one_of, value_error, whole_number
from funcnet.initializers.elementary import Initializer, Normal
from funcnet.kernels import embedding as kernels
from funcnet.kernels.tracing import is_plain
from funcnet.layers.embedding.embedding import PaddedTable
from funcnet.precision import in_single, rounded
from funcnet.value import frozen

_FEW = 64
_FORMS = (
    "x must be integers with two axes, (bags, integers of a bag), or with one and offsets; "
    'with mode="sum" weights of the shape of the integers may come last'
)


@frozen
class EmbeddingBag(PaddedTable):
    """Sum, mean or maximum of the rows that a bag of integers selects.

        sum, mean    y = Σ s w[x]              gw[i] = Σ s gy where x = i     gs = w[x] · gy
        max          y = max w[x], elementwise gw[i] = Σ gy where the maximum is in row i
                     gx is ``None`` for integers and offsets

    s is 1 for a sum, 1 / (number of integers in the bag) for a mean, or a weight that is part of x. The integer ``padding_idx``
    is ignored. An empty bag has y = 0.

    Args:
        num_embeddings: Number of integers, the rows of the table.
        embedding_dim: Size of each row, the last axis of y.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        padding_idx: Integer to ignore; negative to count from the end; ``None`` to ignore none.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (bags, integers per bag) → y (bags, embedding_dim). For bags of different sizes, x is a pair (integers, offsets): the
        integers of all bags along one axis, and the position at which each bag begins, in order, with 0 as the first. With
        ``mode="sum"``, weights of the shape of the integers can follow: (integers, weights), or (integers, offsets, weights).

    Params:
        weight: (num_embeddings, embedding_dim), standard normal.

    Cache:
        The integers; with offsets the bag of each integer; the factor s of each integer, or the row of each maximum; the
        structure of ``x``, and the number of bags.

    Raises:
        ValueError: If ``padding_idx`` is out of range, or if x has another structure, an index out of range, or weights in
            another mode.

    References:
        ``torch.nn.EmbeddingBag``.

    >>> layer = EmbeddingBag(10, 4)
    >>> layer(layer.init(0), (torch.tensor([1, 2, 3]), torch.tensor([0, 2]))).shape
    torch.Size([2, 4])
    """

    mode: str = field(default="mean", validator=one_of("sum", "mean", "max"))
    padding_idx: int | None = field(default=None, validator=optional(whole_number))
    initializer: str | Initializer = field(default=Normal(), validator=initializers.known)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        if not self._is_bags(x):
            raise Misfit
        ids, *rest = x if isinstance(x, tuple) else (x,)
        offsets = rest.pop(0) if ids.dim() == 1 else None
        s = rest[0] if rest else None
        rows = self._counted_rows(params, ids, -torch.inf if self.mode == "max" else 0.0)
        if s is not None and (s.dtype is not rows.dtype or s.is_cpu is not rows.is_cpu):
            rule = f"the weights must have the dtype and device of the table, {rows.dtype} on {rows.device}"
            raise value_error(self, rule, f"{describe(s)} on {s.device}")
        y, bag, share = self._reduced(ids, offsets, s, rows)
        return y, (ids, bag, share, len(x) if isinstance(x, tuple) else 0, s is not None, y.shape[0])

    def _is_bags(self, x: Any) -> bool:
        """Return whether x has integers and, as far as their axes and the mode allow, offsets and weights."""
        ids, *rest = x if isinstance(x, tuple) and x else (x,)
        counts = (ids.dim(), len(rest)) if isinstance(ids, Tensor) else None
        weighted = counts in ((2, 1), (1, 2))
        return counts in ((2, 0), (1, 1)) or (weighted and self.mode == "sum" and _has_shape_of(rest[-1], ids))

    def _reduced(
        self, ids: Tensor, offsets: Tensor | None, s: Tensor | None, rows: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return y, the bag of each integer if there are offsets, and the factors or the rows of the maxima."""
        bag = None if offsets is None else self._bags(ids, offsets)
        count = (ids if offsets is None else offsets).shape[0]
        if self.mode == "max":
            y, which = self._largest(ids, bag, count, rows)
            return y, bag, which
        wide = in_single(rows)
        share = self._shares(ids, bag, count, s, wide.dtype)
        y = torch.einsum("bi,bid->bd", share, wide) if bag is None else _summed(share.unsqueeze(1) * wide, bag, count)
        return rounded(y, rows), bag, share

    def _bags(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Return the index of the bag that each integer is in."""
        if is_plain(offsets) and not _never_decrease(offsets):  # no kernel would notice
            raise Misfit
        begun = torch.zeros(ids.shape[0] + 1, dtype=torch.int64, device=ids.device)
        return begun.index_add(0, offsets, torch.ones_like(offsets, dtype=torch.int64)).cumsum(0)[:-1] - 1

    def _counted_rows(self, params: Params, ids: Tensor, nothing: float) -> Tensor:
        """Return the rows of the table at ``ids``, with ``nothing`` for the padding, whose row can contain NaN."""
        rows = self._rows(params, ids)
        return rows if self.padding_idx is None else rows.masked_fill(~self._is_counted(ids).unsqueeze(-1), nothing)

    def _shares(self, ids: Tensor, bag: Tensor | None, count: int, s: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the factor of each integer's row."""
        if s is not None:
            return s.to(dtype).masked_fill(~self._is_counted(ids), 0.0)
        counted = self._is_counted(ids).to(dtype)
        if self.mode == "sum":
            return counted
        if bag is None:
            return counted / counted.sum(1, keepdim=True).clamp_min(1)
        return counted / _summed(counted, bag, count).clamp_min(1).index_select(0, bag)

    def _is_counted(self, ids: Tensor) -> Tensor:
        return ids != self.padding_row

    def _largest(self, ids: Tensor, bag: Tensor | None, count: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maximum of each bag, elementwise, and the row of the table that has it; -1 for an empty bag."""
        if not ids.numel():
            return rows.new_zeros(count, rows.shape[-1]), ids.new_full((count, rows.shape[-1]), -1)
        counted = self._is_counted(ids)
        if bag is None:
            y, places = rows.max(1)
            first = counted.to(torch.uint8).argmax(1, keepdim=True)  # if all rows are -inf, the padding ties with them
            which, some = ids.gather(1, torch.where(y == -torch.inf, first, places)), counted.any(1)
        else:
            at = bag.unsqueeze(1).expand(rows.shape)
            y = torch.full_like(rows[:1], -torch.inf).expand(count, -1).scatter_reduce(0, at, rows, "amax")
            which, some = self._first_of(ids, bag, y, rows), _summed(counted.long(), bag, count) > 0
        return torch.where(some.unsqueeze(1), y, 0.0), torch.where(some.unsqueeze(1), which, -1)

    def _first_of(self, ids: Tensor, bag: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Return, elementwise, the first integer of each bag that counts and whose row equals y."""
        found, n = y.index_select(0, bag), torch.arange(ids.shape[0], device=ids.device).unsqueeze(1)
        is_first = ((rows == found) | (rows.isnan() & found.isnan())) & self._is_counted(ids).unsqueeze(1)
        first = torch.where(is_first, n, ids.shape[0])
        places = (
            torch.full_like(first[:1], ids.shape[0] - 1)
            .expand(y.shape[0], -1)
            .scatter_reduce(0, bag.unsqueeze(1).expand(rows.shape), first, "amin")
        )
        return ids.index_select(0, places.flatten()).reshape(places.shape)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Any]:
        return self.grads(params, cache, gy), self._input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Grads:
        ids, bag, share, *_ = cache
        if self.mode == "max":
            g = in_single(self._checked(params, cache, gy))
            gw = g.new_zeros(params["weight"].shape).scatter_add(0, share.clamp_min(0).long(), torch.where(share >= 0, g, 0.0))
            return {"weight": rounded(gw, gy)}
        g = share.unsqueeze(-1) * self._copy_to_integers(self._checked(params, cache, gy), bag)
        return {"weight": rounded(kernels.embedding_backward(g, ids, self.num_embeddings, self.padding_row), gy)}

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Any:
        return self._input_grad(params, cache, self._checked(params, cache, gy))

    def _input_grad(self, params: Params, cache: Any, gy: Tensor) -> Any:
        """Return the gradient of x for a checked gy."""
        ids, bag, _, entries, weighted, _ = cache
        nothing = (None,) * (entries - weighted)
        if not weighted:
            return nothing if entries else None
        gs = (in_single(self._counted_rows(params, ids, 0.0)) * self._copy_to_integers(gy, bag)).sum(-1)
        return (*nothing, rounded(gs, gy))

    def _shape(self, cache: Any) -> Shape:
        return (cache[-1],)

    def _copy_to_integers(self, gy: Tensor, bag: Tensor | None) -> Tensor:
        """Return for each integer the gradient of its bag."""
        return gy.unsqueeze(1) if bag is None else gy.index_select(0, bag)

    def complaint(self, x: Any) -> str | None:
        if not self._is_bags(x):
            return _FORMS
        ids = x[0] if isinstance(x, tuple) else x
        return (
            super().complaint(ids) or f"the offsets must be integers that start at 0, do not decrease and are at most {len(ids)}"
        )


def _never_decrease(offsets: Tensor) -> bool:
    """Return whether offsets never decrease. For a few offsets a list takes 0.4 µs, tensors 4."""
    if offsets.numel() <= _FEW:
        numbers = offsets.tolist()
        return numbers == sorted(numbers)
    return not bool((offsets[1:] < offsets[:-1]).any())


def _has_shape_of(s: Any, ids: Tensor) -> bool:
    return isinstance(s, Tensor) and not s.is_nested and s.shape == ids.shape


def _summed(rows: Tensor, bag: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, *rows.shape[1:]).index_add(0, bag, rows)
