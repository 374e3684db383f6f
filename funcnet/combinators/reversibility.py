"""Reversibility: a pair of residual steps that can be inverted, so only their output is kept.

    y₁ = x₁ + f(x₂)         y₂ = x₂ + g(y₁)
    x₂ = y₂ - g(y₁)         x₁ = y₁ - f(x₂)                 the inverse
    h  = g₁ + g_g           gx = (h, g₂ + g_f)              (g₁, g₂) = gy

g_g is the gradient of y₁ through g, from g₂; g_f is the gradient of x₂ through f, from h.
"""

from typing import Any, Self

from attrs import field
from torch import Tensor

from funcnet.checks import check_gy, require_pair
from funcnet.combinator import Children, Combinator, child_key, errors_at, layers_only
from funcnet.combinators.runs import Output, kept
from funcnet.contract import Cache, Grads, Layer, Params, Rng, output
from funcnet.errors import describe, value_error
from funcnet.value import frozen

_Pair = tuple[Tensor, Tensor]


@frozen
class Halves(Combinator):
    """Base of combinators of two layers: f updates the first half of x from the second, and g the second from the first."""

    f: Layer = field(validator=layers_only)
    g: Layer = field(validator=layers_only)

    def children(self) -> Children:
        return {"0": self.f, "1": self.g}

    def with_children(self, children: Children) -> Self:
        return self.replace(f=children["0"], g=children["1"])

    def wires(self) -> list[tuple[str | None, str | None]]:
        return [(None, "0"), (None, "1"), ("0", "1"), (None, None), ("0", None), ("1", None)]

    def location(self, name: Any) -> str:
        return f"{self.label}, {'fg'[int(name)]}"


@frozen
class Reversible(Halves):
    """Two residual steps on a pair, each computed from the other half; made by ``reversible``.

        y₁ = x₁ + f(x₂)         y₂ = x₂ + g(y₁)
        h  = g₁ + g_g           gx = (h, g₂ + g_f)      gq, g_g = g.vjp(g₂)      gp, g_f = f.vjp(h)

    Args:
        f: The layer from the second half to the shape of the first.
        g: The layer from the first half to the shape of the second.

    Params:
        A pair: the params of f and the params of g.

    Cache:
        y, not copied, and the key. ``restore`` returns the pair of the caches of f and g.

    Raises:
        ValueError: If x is not a pair of floating tensors, or f(x₂) or g(y₁) does not have the shape and dtype of x₁ or x₂.
    """

    label = "reversible"
    passes_gradients_on = True

    def apply(self, params: Params, x: _Pair, rng: Rng = None) -> tuple[_Pair, Output]:
        y = self(params, x, rng)
        return y, kept(y, rng, stochastic=self.stochastic)

    def __call__(self, params: Params, x: _Pair, rng: Rng = None) -> _Pair:
        (p, q), (x1, x2) = self.entries(params), require_pair(self, x)
        y1 = x1 + self._step(0, p, x2, rng, x1)
        return y1, x2 + self._step(1, q, y1, rng, x2)

    def inverse(self, params: Params, y: _Pair, rng: Rng = None) -> _Pair:
        (p, q), (y1, y2) = self.entries(params), require_pair(self, y)
        x2 = y2 - self._step(1, q, y1, rng, y2)
        return y1 - self._step(0, p, x2, rng, y1), x2

    def restore(self, params: Params, y: _Pair, rng: Rng = None) -> tuple[_Pair, Cache]:
        (p, q), (y1, y2) = self.entries(params), require_pair(self, y)
        with errors_at(self, 1):
            step, cache_g = self.g.apply(q, y1, child_key(self.g, rng, 1))
        x2 = y2 - step
        with errors_at(self, 0):
            step, cache_f = self.f.apply(p, x2, child_key(self.f, rng, 0))
        return (y1 - step, x2), (cache_f, cache_g)

    def vjp(self, params: Params, cache: Cache, gy: _Pair) -> tuple[Grads, _Pair]:
        (p, q), (cache_f, cache_g), (g1, g2) = self._backward(params, cache, gy)
        with errors_at(self, 1):
            gq, back = self.g.vjp(q, cache_g, g2)
        h = check_gy(self, g1, back.shape, back) + back
        with errors_at(self, 0):
            gp, back = self.f.vjp(p, cache_f, h)
        return (gp, gq), (h, g2 + back)

    def grads(self, params: Params, cache: Cache, gy: _Pair) -> Grads:
        (p, q), (cache_f, cache_g), (g1, g2) = self._backward(params, cache, gy)
        with errors_at(self, 1):
            gq, back = self.g.vjp(q, cache_g, g2)
        with errors_at(self, 0):
            return self.f.grads(p, cache_f, check_gy(self, g1, back.shape, back) + back), gq

    def input_grad(self, params: Params, cache: Cache, gy: _Pair) -> _Pair:
        (p, q), (cache_f, cache_g), (g1, g2) = self._backward(params, cache, gy)
        with errors_at(self, 1):
            back = self.g.input_grad(q, cache_g, g2)
        h = check_gy(self, g1, back.shape, back) + back
        with errors_at(self, 0):
            return h, g2 + self.f.input_grad(p, cache_f, h)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        return super().update_stats(params, self._caches_of(params, cache)) if self.has_running_stats else params

    def infer(self, x: Any) -> tuple[Layer, Any]:
        x1, x2 = require_pair(self, x)
        with errors_at(self, 0):
            f, step = self.f.infer(x2)
        with errors_at(self, 1):
            g, _ = self.g.infer(x1 + step)
        layer = self.replace(f=f, g=g)
        return layer, output(layer, x)

    def _step(self, i: int, p: Params, x: Tensor, rng: Rng, like: Tensor) -> Tensor:
        """Compute f or g, and check its output: torch would broadcast another shape and promote another dtype."""
        layer = self.g if i else self.f
        with errors_at(self, i):
            step = layer(p, x, child_key(layer, rng, i))
        if not isinstance(step, Tensor) or step.shape != like.shape or step.dtype is not like.dtype:
            rule = f"{'g(y1)' if i else 'f(x2)'} must have the shape and dtype of {'x2' if i else 'x1'}, {describe(like)}"
            raise value_error("reversible", rule, describe(step))
        return step

    def _backward(self, params: Params, cache: Cache, gy: Any) -> tuple[Any, Any, _Pair]:
        """Return the params and the caches of f and g, and gy, after checking that it is a pair."""
        if not isinstance(gy, tuple) or len(gy) != 2:
            raise value_error("reversible", "gy must be a pair", describe(gy))
        return self.entries(params), self._caches_of(params, cache), gy

    def _caches_of(self, params: Params, cache: Cache) -> Any:
        return self.restore(params, *cache)[1] if type(cache) is Output else cache

    def __repr__(self) -> str:
        return f"reversible({self.f!r}, {self.g!r})"


def reversible(f: Layer, g: Layer) -> Reversible:
    """Update each half of x with a layer of the other half, and invert these steps instead of keeping a cache.

        y₁ = x₁ + f(x₂)      y₂ = x₂ + g(y₁)
        x₂ = y₂ - g(y₁)      x₁ = y₁ - f(x₂)      the inverse
        h  = g₁ + g_g        gx = (h, g₂ + g_f)   (g₁, g₂) = gy, g_g through g from g₂, g_f through f from h

    x and y are pairs of tensors. Only y is kept: ``vjp`` restores x from it, and computes f and g once more. A run of invertible
    layers in ``serial``, or a ``repeat``, keeps one output for all, so memory does not grow with depth. The restored x differs
    from x by rounding, and so do the gradients. The difference is large if f or g amplifies it, as a norm of nearly equal numbers
    does.

    Args:
        f: A layer from the second half to the shape of the first.
        g: A layer from the first half to the shape of the second.

    Shape:
        x ((..., n₁), (..., n₂)) → y of the same shapes.

    Params:
        A pair: the params of f and the params of g.

    Cache:
        y, not copied, and the key.

    Raises:
        ValueError: If x is not a pair of floating tensors, or f(x₂) or g(y₁) does not have the shape and dtype of x₁ or x₂.

    References:
        Gomez et al. 2017, algorithm 1.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> layer = reversible(Linear(3, 2), Linear(2, 3))
    >>> params, x = layer.init(0), (torch.ones(4, 2), torch.ones(4, 3))
    >>> restored = layer.inverse(params, layer(params, x))
    >>> all(torch.allclose(a, b) for a, b in zip(restored, x, strict=True))
    True
    """
    return Reversible(f, g)
