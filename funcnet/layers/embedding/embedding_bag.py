"""Embedding bags: integers name rows of a table; what comes out is one row for each bag of them.

    sum, mean   y = Σ s w[x]                 gw[i] = Σ s gy where x = i       gs = w[x] · gy       over the bag
    max         y = max w[x], by element     gw[i] = Σ gy where the largest is that of x = i

x (bags, integers of a bag), w (rows, dim), y (bags, dim). An integer has no gradient: gx is ``None``. s is a weight that comes
with x, or 1, or for a mean 1 over the size of the bag.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import check_gy, explain_error
from funcnet.contract import Params, Rng
from funcnet.errors import one_of, value_error
from funcnet.initializers import Initializer, Normal
from funcnet.kernels import embedding as kernels
from funcnet.layers.embedding.embedding import Table, padding_index
from funcnet.random import Key
from funcnet.value import frozen


@frozen
class EmbeddingBag(Table):
    """The sum, mean or maximum of the rows that a bag of integers names: x (bags, integers of a bag) gives y (bags, dim).

    x may be a pair (integers, offsets) too, the integers of all bags in one axis, and where in it each bag begins, the first
    at 0, in order. For ``mode="sum"`` weights, which have a gradient, may come last: (integers, weights), or (integers,
    offsets, weights). The integer ``padding_idx`` counts for nothing; a bag of none gives zeros.

    Params   ``weight`` (num_embeddings, embedding_dim), normal with variance 1 unless ``initializer`` names another.
    Cache    the integers, the bag of each where there are offsets, and by how much each counts, or the rows of the largest.
    Raises   ``ValueError`` for sizes below 1, an unknown ``mode``, a ``padding_idx`` that is no row, params that are not this
             layer's, and an ``x`` of another form, that names a row that there is not, or has weights with another mode.
    Source   the names are ``torch.nn.EmbeddingBag``'s.
    """

    mode: str = field(default="mean", validator=one_of("sum", "mean", "max"))
    padding_idx: int | None = field(default=None, validator=padding_index)
    initializer: str | Initializer = field(default=Normal(), validator=initializers.known)

    def __attrs_post_init__(self) -> None:
        self._check_padding(self.padding_idx)

    def init(self, rng: Key | int) -> Params:
        return self._first(rng, self.initializer, self.padding_idx)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Any]:
        ids, offsets, s = self._parts(x)
        try:
            rows = kernels.embedding(self._table(params), ids)
        except Exception as error:
            raise explain_error(self, params, ids, error) from None
        entries = len(x) if isinstance(x, tuple) else 0
        try:
            y, bag, share = self._reduced(ids, offsets, s, rows)
        except (IndexError, RuntimeError):
            raise value_error(self, f"the offsets must be from 0, the first, to {len(ids)}, and rise", offsets) from None
        return y, (ids, bag, share, entries, s is not None)

    def _reduced(
        self, ids: Tensor, offsets: Tensor | None, s: Tensor | None, rows: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return y, the bag of each integer where there are offsets, and the shares, or the rows of the largest."""
        bag = None if offsets is None else self._bags(ids, offsets)
        count = len(ids if offsets is None else offsets)
        if self.mode == "max":
            y, which = self._largest(ids, bag, count, rows)
            return y, bag, which
        share = self._shares(ids, bag, count, s, rows.dtype)
        y = torch.einsum("bi,bid->bd", share, rows) if bag is None else _summed(share.unsqueeze(1) * rows, bag, count)
        return y, bag, share

    def _parts(self, x: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return integers, offsets and weights, the last two ``None`` where there are none."""
        ids, *rest = x if isinstance(x, tuple) and x else (x,)
        if not isinstance(ids, Tensor) or ids.dim() not in (1, 2) or len(rest) > 3 - ids.dim() or (ids.dim() == 1 and not rest):
            rule = "x must be integers with two axes, (bags, integers of a bag), or with one and offsets, weights may come last"
            raise value_error(self, rule, x)
        offsets = rest.pop(0) if ids.dim() == 1 else None
        if offsets is not None and (offsets.dim() != 1 or offsets.is_floating_point()):
            raise value_error(self, "the offsets must be integers with one axis", offsets)
        if rest and (self.mode != "sum" or rest[0].shape != ids.shape):
            raise value_error(self, f'weights must have the shape of the integers, {tuple(ids.shape)}, and mode="sum"', rest[0])
        return ids, offsets, rest[0] if rest else None

    def _bags(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Return the number of the bag that each integer is in."""
        begun = torch.zeros(len(ids) + 1, dtype=torch.int64, device=ids.device)
        return begun.index_add(0, offsets, torch.ones_like(offsets, dtype=torch.int64)).cumsum(0)[:-1] - 1

    def _shares(self, ids: Tensor, bag: Tensor | None, count: int, s: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return by how much each integer's row counts."""
        kept = self._kept(ids).to(dtype)
        if self.mode == "sum":
            return kept if s is None else kept * s
        if bag is None:
            return kept / kept.sum(1, keepdim=True).clamp_min(1)
        return kept / _summed(kept, bag, count).clamp_min(1).index_select(0, bag)

    def _kept(self, ids: Tensor) -> Tensor:
        return ids != self._padding(self.padding_idx)

    def _largest(self, ids: Tensor, bag: Tensor | None, count: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest of each bag, by element, and which row of the table each is of; -1 for that of an empty bag."""
        if not ids.numel():
            return rows.new_zeros(count, rows.shape[-1]), ids.new_full((count, rows.shape[-1]), -1)
        rows = rows.masked_fill(~self._kept(ids).unsqueeze(-1), -torch.inf)
        if bag is None:
            y, places = rows.max(1)
            which = ids.gather(1, places)
        else:
            at = bag.unsqueeze(1).expand(rows.shape)
            y = torch.full_like(rows[:1], -torch.inf).expand(count, -1).scatter_reduce(0, at, rows, "amax")
            n = torch.arange(len(ids), device=ids.device).unsqueeze(1)
            first = torch.where(rows == y.index_select(0, bag), n, len(ids))
            places = torch.full_like(first[:1], len(ids) - 1).expand(count, -1).scatter_reduce(0, at, first, "amin")
            which = ids.index_select(0, places.flatten()).reshape(places.shape)
        some = y != -torch.inf
        return torch.where(some, y, 0.0), torch.where(some, which, -1)

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Params, Any]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Params:
        ids, bag, share, *_ = cache
        if self.mode == "max":
            gy = check_gy(self, gy, tuple(share.shape))
            gw = torch.zeros_like(params["weight"]).scatter_add(0, share.clamp_min(0).long(), gy * (share >= 0))
            return {"weight": gw}
        g = share.unsqueeze(-1) * self._to_each(gy, ids, bag)
        return {"weight": kernels.embedding_backward(g, ids, self.num_embeddings, self._padding(self.padding_idx))}

    def input_grad(self, params: Params, cache: Any, gy: Tensor) -> Any:
        ids, bag, _, entries, weighted = cache
        nothing = (None,) * (entries - weighted)
        if not weighted:
            return nothing if entries else None
        gs = (kernels.embedding(params["weight"], ids) * self._to_each(gy, ids, bag)).sum(-1)
        return (*nothing, gs * self._kept(ids))

    def _to_each(self, gy: Tensor, ids: Tensor, bag: Tensor | None) -> Tensor:
        """Return for each integer the gradient of its bag."""
        if bag is None:
            return check_gy(self, gy, (len(ids), self.embedding_dim)).unsqueeze(1)
        return gy.index_select(0, bag)


def _summed(rows: Tensor, bag: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, *rows.shape[1:]).index_add(0, bag, rows)
