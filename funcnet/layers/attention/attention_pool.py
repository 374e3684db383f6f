"""Pooling by attention: the mean of the rows of a sequence, weighted by how well they match a learned query.

x (..., L, E), q (E,), scores s and weights p (..., L), y (..., E).
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, axes_complaint, check_gy, check_param, floating_complaint
from funcnet.contract import Cache, Grads, Layer, Params, Rng, Size
from funcnet.errors import size_or_none
from funcnet.initializers.elementary import Initializer
from funcnet.kernels.activation import softmax_backward
from funcnet.layers.attention.masks import broadcasts_to
from funcnet.precision import in_single, rounded
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class AttentionPool(Layer):
    """Average the rows of each sequence, weighted by the softmax of their products with a learned query.

        s  = x q            p  = softmax(s) over the rows allowed      y  = Σ p x over the rows
        gp = x gy           gs = p ⊙ (gp - Σ gp ⊙ p)
        gq = Σ gs x         gx = p gyᵀ + gs qᵀ                         gq summed over all rows

    A sequence without any allowed row gives y = 0. Masks and lengths have no gradient.

    Args:
        in_features: Size E of the last axis of x; ``None`` to infer it with ``infer_sizes``.
        initializer: Initializer of ``query``, by name or value. With zeros, the default, y is the plain mean at first.

    Shape:
        x (..., L, in_features), (x, mask) or (x, lengths) → y (..., in_features). The bool mask broadcasts to (..., L), True for
        the rows that count; lengths are integers (...), numbers of rows that count, from the first.

    Params:
        query: (in_features,), zeros.

    Cache:
        ``x``, copied only with a mask or lengths, with zeros in the rows that do not count; p in single precision at least.

    Raises:
        ValueError: If the mask or the lengths do not fit x.

    References:
        Yang et al. 2016, eq. 6 and 7, without the hidden layer; ``thinc.ParametricAttention`` with a sum.

    >>> pool = AttentionPool(2)
    >>> pool(pool.init(0), (torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]), torch.tensor(2)))
    tensor([2., 3.])
    """

    in_features: Size = field(validator=size_or_none)
    initializer: str | Initializer = field(default="zeros", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return {"query": initializers.initialize(rng, (self.in_features,), self.initializer)}

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Cache]:
        rows, mask = self._parts(params, x)
        wide = in_single(rows)
        s = torch.matmul(wide, in_single(params["query"]))
        s = s if mask is None else s.masked_fill(~mask, -torch.inf)
        p = torch.softmax(s, -1)
        p = p if mask is None else p.masked_fill(~mask, 0.0)  # softmax over no rows gives NaN
        return rounded(torch.matmul(p.unsqueeze(-2), wide).squeeze(-2), rows), (rows, p, isinstance(x, tuple))

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Any]:
        wide, rows, p, gs = self._scores(cache, gy)
        return self._query_grad(gs, rows, gy), self._x_grad(params, cache, wide, p, gs)

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Grads:
        _, rows, _, gs = self._scores(cache, gy)
        return self._query_grad(gs, rows, gy)

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Any:
        gy, _, p, gs = self._scores(cache, gy)
        return self._x_grad(params, cache, gy, p, gs)

    def _scores(self, cache: Cache, gy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return gy, the rows, their weights and the gradient of their scores, in single precision at least."""
        rows, p, _ = cache
        gy, rows = in_single(check_gy(self, gy, (*rows.shape[:-2], rows.shape[-1]), rows)), in_single(rows)
        gp = torch.matmul(rows, gy.unsqueeze(-1)).squeeze(-1)
        return gy, rows, p, softmax_backward(gp, p, -1, p.dtype)

    def _query_grad(self, gs: Tensor, rows: Tensor, like: Tensor) -> Params:
        return {"query": rounded(torch.mv(rows.reshape(-1, rows.shape[-1]).t(), gs.reshape(-1)), like)}

    def _x_grad(self, params: Params, cache: Cache, gy: Tensor, p: Tensor, gs: Tensor) -> Any:
        x, _, is_pair = cache
        query = check_param(self, params, "query", (self.in_features,), x)
        gx = p.unsqueeze(-1) * gy.unsqueeze(-2) + gs.unsqueeze(-1) * query
        return (rounded(gx, x), None) if is_pair else rounded(gx, x)

    def _parts(self, params: Params, x: Any) -> tuple[Tensor, Tensor | None]:
        """Return the rows and the mask of those that count; the others become zeros, because 0 times NaN is NaN."""
        rows, counts = x if isinstance(x, tuple) else (x, None)
        valid = rows is x or _are_counts_of(rows, counts)
        if not valid or len(params) != 1 or params["query"].shape != (self.in_features,):
            raise Misfit
        if counts is None:
            return rows, counts
        is_mask = counts.dtype == torch.bool
        mask = counts if is_mask else torch.arange(rows.shape[-2], device=rows.device) < counts.unsqueeze(-1)
        return torch.where(mask.unsqueeze(-1), rows, 0.0), mask

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"query": (self.in_features,)}

    def complaint(self, x: Any) -> str | None:
        if isinstance(x, tuple) and not (len(x) == 2 and isinstance(x[1], Tensor)):
            return "x must be a tensor, (x, mask) or (x, lengths)"
        rows = x[0] if isinstance(x, tuple) else x
        rule = floating_complaint(rows) or axes_complaint(self, rows, "..., L, in_features")
        if rule or rows is x or _are_counts_of(*x):
            return rule
        *n, length = rows.shape[:-1]
        return f"x must come with a bool mask that broadcasts to {(*n, length)}, or with integer lengths of shape {tuple(n)}"


def _are_counts_of(rows: Tensor, counts: Any) -> bool:
    """Return whether ``counts`` is a mask, or lengths, that fits the rows."""
    if isinstance(counts, Tensor) and counts.dtype == torch.bool:
        return not counts.is_nested and broadcasts_to(counts.shape, rows.shape[:-1])
    return (
        isinstance(counts, Tensor) and not counts.is_nested and counts.shape == rows.shape[:-2] and not counts.is_floating_point()
    )
