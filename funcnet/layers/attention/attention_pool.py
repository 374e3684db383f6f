"""Pooling by attention: the mean of a sequence's rows, weighted by how well they match a learned query.

    s  = x q            p = softmax(s) over the rows allowed      y = Σ p x, over the rows
    gp = x gy           gs = p ⊙ (gp - Σ gp ⊙ p)
    gq = Σ gs x         gx = p gyᵀ + gs qᵀ

x (..., L, E), q (E,), s and p (..., L), y (..., E); gq is summed over all rows. A mask and lengths have no gradient.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, explain_error, require_sizes
from funcnet.contract import Cache, Layer, Params, Rng, Size
from funcnet.errors import size_or_none
from funcnet.initializers import Initializer
from funcnet.kernels.activation import softmax_backward
from funcnet.random import Key
from funcnet.value import frozen


@frozen
class AttentionPool(Layer):
    """One row for each sequence: x (..., L, in_features), or (x, mask), or (x, lengths), gives y (..., in_features).

    The bool mask broadcasts to (..., L), True for the rows that count; lengths are integers (...), and count that many rows from
    the first. A sequence without any has y = 0. ``in_features=None`` is for ``infer_sizes`` to find.

    Params   ``query`` (in_features,), zeros unless ``initializer`` names another, so that at first y is the mean.
    Cache    the inputs, and the weights p.
    Raises   ``ValueError`` for a size below 1, params that are not this layer's, an ``x`` without the axes (L, in_features) or of
             another dtype, and a mask or lengths of other shapes.
    Source   Yang et al. 2016, eq. 6 and 7, with the rows for the hidden ones; ``thinc.ParametricAttention``, summed.
    """

    in_features: Size = field(validator=size_or_none)
    initializer: str | Initializer = field(default="zeros", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return {"query": initializers.initialize(rng, (require_sizes(self).in_features,), self.initializer)}

    def apply(self, params: Params, x: Any, rng: Rng = None) -> tuple[Tensor, Cache]:
        try:
            rows, seen = self._parts(params, x)
            s = torch.matmul(rows, params["query"])
            s = s if seen is None else s.masked_fill(~seen, -torch.inf)
            p = torch.softmax(s, -1)
            p = p if seen is None else p.masked_fill(~seen, 0.0)  # of no rows it is NaN
            return torch.matmul(p.unsqueeze(-2), rows).squeeze(-2), (x, p)
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Params, Any]:
        gy, rows, p, gs = self._scores(cache, gy)
        return self._query_grad(gs, rows), self._x_grad(params, cache, gy, p, gs)

    def grads(self, params: Params, cache: Cache, gy: Tensor) -> Params:
        _, rows, _, gs = self._scores(cache, gy)
        return self._query_grad(gs, rows)

    def input_grad(self, params: Params, cache: Cache, gy: Tensor) -> Any:
        gy, _, p, gs = self._scores(cache, gy)
        return self._x_grad(params, cache, gy, p, gs)

    def _scores(self, cache: Cache, gy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return gy, the rows, their weights, and the gradient of their scores."""
        x, p = cache
        rows = x[0] if isinstance(x, tuple) else x
        gy = check_gy(self, gy, (*rows.shape[:-2], rows.shape[-1]))
        gp = torch.matmul(rows, gy.unsqueeze(-1)).squeeze(-1)
        return gy, rows, p, softmax_backward(gp, p, -1, p.dtype)

    def _query_grad(self, gs: Tensor, rows: Tensor) -> Params:
        return {"query": torch.mv(rows.reshape(-1, rows.shape[-1]).t(), gs.reshape(-1))}

    def _x_grad(self, params: Params, cache: Cache, gy: Tensor, p: Tensor, gs: Tensor) -> Any:
        gx = p.unsqueeze(-1) * gy.unsqueeze(-2) + gs.unsqueeze(-1) * params["query"]
        return (gx, None) if isinstance(cache[0], tuple) else gx

    def _parts(self, params: Params, x: Any) -> tuple[Tensor, Tensor | None]:
        """Return the rows, and which of them count."""
        if len(params) != 1 or params["query"].shape != (self.in_features,) or self.complaint(x):
            raise Misfit
        if not isinstance(x, tuple):
            return x, None
        rows, of = x
        if of.dtype == torch.bool:
            return rows, of
        return rows, torch.arange(rows.shape[-2], device=rows.device) < of.unsqueeze(-1)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"query": (self.in_features,)}

    def complaint(self, x: Any) -> str | None:
        if isinstance(x, tuple) and (len(x) != 2 or not all(isinstance(one, Tensor) for one in x)):
            return "x must be a tensor, (x, mask) or (x, lengths)"
        rows = x[0] if isinstance(x, tuple) else x
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            return "x must be a floating tensor"
        if rows.dim() < 2 or rows.shape[-1] != self.in_features:
            return f"x must have the axes (..., L, in_features={self.in_features})"
        return self._misfit(rows.shape, x[1]) if isinstance(x, tuple) else None

    def _misfit(self, shape: tuple[int, ...], of: Tensor) -> str | None:
        if of.is_floating_point():
            return "what counts must be said by a bool mask or integer lengths"
        if of.dtype != torch.bool:
            return None if of.shape == shape[:-2] else f"lengths must have the shape {tuple(shape[:-2])}"
        last = shape[len(shape) - 1 - of.dim() : -1] if of.dim() < len(shape) else ()
        fits = len(last) == of.dim() and all(ours in (1, n) for ours, n in zip(of.shape, last, strict=True))
        return None if fits else f"the mask must broadcast to {tuple(shape[:-1])}"
