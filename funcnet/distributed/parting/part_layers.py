"""Parts of layers: one worker's computation of a layer with divided params, and the exchange between workers.

    by columns   yᵣ = x wᵣᵀ + bᵣ             gx = Σ gyᵣ wᵣ          each worker computes a part of y
    by rows      y  = Σ xᵣ wᵣᵀ + b           gxᵣ = gy wᵣ            each worker uses a part of x
    heads        y  = Σ aᵣ Oᵣᵀ + o           gx = Σ gxᵣ             input projection by columns, output projection by rows
    a table      y  = Σ [x in rows r] Eᵣ[x]  gEᵣ = rows of gy       each worker has some rows of the table

Sums are over the workers r. Whole tensors are the same on all workers, bit for bit.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random, tree
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.distributed.parting.passages import Cut, Move, Passage, start_sum
from funcnet.distributed.workers import Workers
from funcnet.layers.attention.dot_product import ScaledDotProductAttention
from funcnet.layers.attention.multihead import MultiHeadAttention
from funcnet.layers.noise.dropout import Dropout
from funcnet.value import frozen
from funcnet.wrapper import Wrapper


@frozen
class Parted(Wrapper):
    """A worker's part of a layer, with the exchange between workers before and after it."""

    label = "parted"
    computes = False

    layer: Layer
    before: Passage = field(eq=False)
    after: Passage = field(eq=False)
    moves: tuple[Move, ...] = field(default=(), eq=False)
    once: tuple[str, ...] = ()
    """Paths of leaves that are added to a sum, and therefore only by one worker."""

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        y, cache = self.layer.apply(self._own(params), self.before.forward(x), rng)
        return self.after.forward(y), cache

    def __call__(self, params: Params, x: Any, rng: Rng = None) -> Any:
        return self.after.forward(self.layer(self._own(params), self.before.forward(x), rng))

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        own, gy = self._own(params), self.after.back(gy)
        if isinstance(self.layer, MultiHeadAttention) or self.before.kind != "copy":
            gparams, gx = self.layer.vjp(own, cache, gy)
            return self._kept(gparams), self.before.back(gx)
        gx = self.before.start_back(self.layer.input_grad(own, cache, gy))  # sent while the gradients of params are computed
        return self._kept(self.layer.grads(own, cache, gy)), gx.wait()

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        made: Grads = self._kept(self.layer.grads(self._own(params), cache, self.after.back(gy)))
        return made

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.before.back(self.layer.input_grad(self._own(params), cache, self.after.back(gy)))

    def update_stats(self, params: Params, cache: Cache) -> Params:
        if not self.layer.has_running_stats:
            return params
        moved: Any = self.layer.update_stats(self._own(params), cache)
        for path in self.once:
            moved = tree.replace(moved, path, tree.at(params, path))
        kept: Params = self._kept(moved)
        return kept

    def _own(self, params: Params) -> Params:
        """Return the params in the placements that the layer needs."""
        for move in self.moves:
            params = tree.replace(params, move.path, move.to_layer(tree.at(params, move.path)))
        for path in self.once if self.after.workers.rank else ():
            params = tree.replace(params, path, torch.zeros_like(tree.at(params, path)))
        return params

    def _kept(self, gparams: Any) -> Any:
        """Return gradients in the placements of the params."""
        for move in self.moves:
            gradient = tree.at(gparams, move.path)
            if gradient is not None:
                gparams = tree.replace(gparams, move.path, move.to_leaf(gradient))
        return gparams


@frozen
class TablePart(Wrapper):
    """A worker's rows of a table; indices of other workers' rows give zeros, and summing over workers gives all rows."""

    label = "parted"
    computes = False

    layer: Layer
    start: int
    num_embeddings: int
    workers: Workers = field(eq=False)

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        own, i = self._own(x)
        y, cache = self.layer.apply(params, i, rng)
        return start_sum(_where(own, y), self.workers).wait(), (own, cache)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        return self.layer.vjp(params, cache[1], _where(cache[0], gy))

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return self.layer.grads(params, cache[1], _where(cache[0], gy))

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        return self.layer.input_grad(params, cache[1], gy)

    def _own(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return which indices are in this worker's rows, and the local rows; invalid indices remain, for the layer to reject."""
        own = (x >= self.start) & (x < self.start + self.layer.num_embeddings)  # type: ignore[attr-defined]
        others = torch.where((x >= 0) & (x < self.num_embeddings), 0, torch.where(x < 0, x, x.clamp(min=self.num_embeddings)))
        return own, torch.where(own, x - self.start, others)


def _where(own: Tensor, rows: Tensor) -> Tensor:
    return torch.where(own.unsqueeze(-1), rows, 0.0)


@frozen
class DropoutPart(Dropout):
    """A worker's part of a dropout, which samples the whole mask in order to drop the same elements as a single process."""

    cut: Any = field(default=Cut(-1), kw_only=True, repr=False)
    workers: Any = field(default=None, kw_only=True, eq=False, repr=False)

    def draw(self, rng: Any, shape: tuple[int, ...]) -> Tensor:
        return _drawn_part(self.workers, self.cut, rng, shape, 1 - self.p)


@frozen
class AttentionPart(ScaledDotProductAttention):
    """A worker's heads of an attention, which drop the same elements as in a single process."""

    workers: Any = field(default=None, kw_only=True, eq=False, repr=False)

    def draw(self, rng: Any, shape: tuple[int, ...]) -> Tensor:
        return _drawn_part(self.workers, Cut(-3), rng, shape, 1 - self.dropout_p)


def _drawn_part(workers: Workers, cut: Cut, rng: Any, shape: tuple[int, ...], p: float) -> Tensor:
    whole = [*shape]
    whole[cut.axis] *= workers.size
    return cut.of(random.bernoulli(rng, tuple(whole), p), workers)


@frozen
class HeadsPart(MultiHeadAttention):
    """A worker's heads of multi-head attention: rows of the input projection, columns of the output projection."""

    label = "MultiHeadAttention"

    workers: Any = field(default=None, kw_only=True, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        one = self._attention
        own = {name: getattr(one, name) for name in ("is_causal", "scale", "dropout_p", "enable_gqa", "window", "soft_cap")}
        object.__setattr__(self, "_attention", AttentionPart(**own, workers=self.workers))

    def _rows(self) -> list[int]:
        return [rows // self.workers.size for rows in super()._rows()]

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        own = self._with_own_mask(x)
        y, cache = super().apply(params, own, rng)
        return y, (cache, own is not x)

    def vjp(self, params: Params, cache: Cache, gy: Any) -> tuple[Grads, Any]:
        gparams, gx = super().vjp(params, cache[0], gy)
        return gparams, self._with_whole_mask(gx) if cache[1] else gx

    def grads(self, params: Params, cache: Cache, gy: Any) -> Grads:
        return super().grads(params, cache[0], gy)

    def input_grad(self, params: Params, cache: Cache, gy: Any) -> Any:
        gx = super().input_grad(params, cache[0], gy)
        return self._with_whole_mask(gx) if cache[1] else gx

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return super().update_stats(params, cache[0])

    def _with_own_mask(self, x: Any) -> Any:
        """Return x with the mask of this worker's heads, if each head has its own mask."""
        has_mask = isinstance(x, tuple) and len(x) in (2, 4) and isinstance(x[-1], Tensor) and x[-1].dim() > 2
        if not has_mask or x[-1].shape[-3] != self.num_heads or self.num_heads == 1:
            return x
        return (*x[:-1], Cut(-3).of(x[-1], self.workers))

    def _with_whole_mask(self, gx: Any) -> Any:
        """Return gx with the gradient of the whole mask, which is zero for other workers' heads."""
        if gx[-1] is None:
            return gx
        own, shape = Cut(-3).of, (*gx[-1].shape[:-3], self.num_heads, *gx[-1].shape[-2:])
        numbers = torch.arange(self.num_heads, device=gx[-1].device).reshape(-1, 1, 1)
        mine = own(numbers, self.workers)
        spread = gx[-1].new_zeros(shape).index_copy(gx[-1].dim() - 3, mine.flatten(), gx[-1])
        return (*gx[:-1], spread)
