"""Affine couplings: each half of x is scaled and shifted using the other half, which is invertible.

    (s, t) = f(x₂)     y₁ = x₁ eˢ + t         (u, v) = g(y₁)     y₂ = x₂ eᵘ + v         ℓ' = ℓ + Σ s + Σ u
    h  = g₁ + gradient of y₁ through g, from (g₂ x₂ eᵘ + k, g₂)                          (g₁, g₂, k) = gy
    gx = (h eˢ, g₂ eᵘ + gradient of x₂ through f, from (h x₁ eˢ + k, h), k)

x and y are triples of two halves and a log-determinant.
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.checks import check_gy, floating_complaint
from funcnet.combinator import child_key, errors_at
from funcnet.combinators.reversibility import Halves
from funcnet.contract import Cache, Grads, Layer, Params, Rng, output
from funcnet.errors import describe, value_error
from funcnet.value import frozen

_Triple = tuple[Tensor, Tensor, Tensor]
_Pair = tuple[Tensor, Tensor]


@frozen
class AffineCoupling(Halves):
    """Two affine couplings, one for each half of x; made by ``affine_coupling``.

        (s, t) = f(x₂)     y₁ = x₁ eˢ + t         (u, v) = g(y₁)     y₂ = x₂ eᵘ + v         ℓ' = ℓ + Σ s + Σ u
        h  = g₁ + gradient of y₁ through g, from (g₂ x₂ eᵘ + k, g₂)                          (g₁, g₂, k) = gy
        gx = (h eˢ, g₂ eᵘ + gradient of x₂ through f, from (h x₁ eˢ + k, h), k)

    Args:
        f: The layer from x₂ to (s, t).
        g: The layer from y₁ to (u, v).

    Params:
        A pair: the params of f and the params of g.

    Cache:
        The caches of f and g, the pairs (x₁ eˢ, eˢ) and (x₂ eᵘ, eᵘ), and the shape of ℓ.

    Raises:
        ValueError: If x is not a tuple (x1, x2, log_det) of floating tensors, log_det does not have the first axes of x1 and x2,
            or f(x2) or g(y1) is not a pair of tensors with the shape and dtype of x1 or x2.
    """

    label = "affine_coupling"
    passes_gradients_on = True

    def apply(self, params: Params, x: _Triple, rng: Rng = None) -> tuple[_Triple, Cache]:
        (p, q), (x1, x2, log_det) = self.entries(params), _require_triple("x", x)
        (s, t), cache_f = self._scale_and_shift(0, p, x2, rng, x1)
        first = _scale(x1, s)
        y1 = first[0] + t
        (u, v), cache_g = self._scale_and_shift(1, q, y1, rng, x2)
        second = _scale(x2, u)
        y = y1, second[0] + v, log_det + (_sum(s, log_det) + _sum(u, log_det))
        return y, (cache_f, cache_g, first, second, tuple(log_det.shape))

    def __call__(self, params: Params, x: _Triple, rng: Rng = None) -> _Triple:
        (p, q), (x1, x2, log_det) = self.entries(params), _require_triple("x", x)
        with errors_at(self, 0):
            found = self.f(p, x2, child_key(self.f, rng, 0))
        s, t = self._pair(0, found, x1)
        y1 = _scale(x1, s)[0] + t
        with errors_at(self, 1):
            found = self.g(q, y1, child_key(self.g, rng, 1))
        u, v = self._pair(1, found, x2)
        return y1, _scale(x2, u)[0] + v, log_det + (_sum(s, log_det) + _sum(u, log_det))

    def inverse(self, params: Params, y: _Triple, rng: Rng = None) -> _Triple:
        return self.restore(params, y, rng)[0]

    def restore(self, params: Params, y: _Triple, rng: Rng = None) -> tuple[_Triple, Cache]:
        (p, q), (y1, y2, log_det) = self.entries(params), _require_triple("y", y)
        (u, v), cache_g = self._scale_and_shift(1, q, y1, rng, y2)
        second = y2 - v, torch.exp(u)
        x2 = second[0] / second[1]
        (s, t), cache_f = self._scale_and_shift(0, p, x2, rng, y1)
        first = y1 - t, torch.exp(s)
        x = first[0] / first[1], x2, log_det - (_sum(s, log_det) + _sum(u, log_det))
        return x, (cache_f, cache_g, first, second, tuple(log_det.shape))

    def vjp(self, params: Params, cache: Cache, gy: _Triple) -> tuple[Grads, _Triple]:
        (p, q), (cache_f, cache_g, first, second, _), (g1, g2, k) = self.entries(params), cache, _require_gy(cache, gy)
        with errors_at(self, 1):
            gq, back = self.g.vjp(q, cache_g, _pull_back(second, g2, k))
        h = g1 + back
        with errors_at(self, 0):
            gp, back = self.f.vjp(p, cache_f, _pull_back(first, h, k))
        return (gp, gq), (h * first[1], g2 * second[1] + back, k)

    def grads(self, params: Params, cache: Cache, gy: _Triple) -> Grads:
        (p, q), (cache_f, cache_g, first, second, _), (g1, g2, k) = self.entries(params), cache, _require_gy(cache, gy)
        with errors_at(self, 1):
            gq, back = self.g.vjp(q, cache_g, _pull_back(second, g2, k))
        with errors_at(self, 0):
            return self.f.grads(p, cache_f, _pull_back(first, g1 + back, k)), gq

    def input_grad(self, params: Params, cache: Cache, gy: _Triple) -> _Triple:
        (p, q), (cache_f, cache_g, first, second, _), (g1, g2, k) = self.entries(params), cache, _require_gy(cache, gy)
        with errors_at(self, 1):
            h = g1 + self.g.input_grad(q, cache_g, _pull_back(second, g2, k))
        with errors_at(self, 0):
            back = self.f.input_grad(p, cache_f, _pull_back(first, h, k))
        return h * first[1], g2 * second[1] + back, k

    def infer(self, x: Any) -> tuple[Layer, Any]:
        x1, x2, _ = _require_triple("x", x)
        with errors_at(self, 0):
            f, _ = self.f.infer(x2)
        with errors_at(self, 1):
            g, _ = self.g.infer(x1)  # y1 has its shape
        layer = self.replace(f=f, g=g)
        return layer, output(layer, x)

    def _scale_and_shift(self, i: int, p: Params, x: Tensor, rng: Rng, like: Tensor) -> tuple[_Pair, Cache]:
        """Apply f or g, and return the pair with the cache."""
        layer = self.g if i else self.f
        with errors_at(self, i):
            found, cache = layer.apply(p, x, child_key(layer, rng, i))
        return self._pair(i, found, like), cache

    def _pair(self, i: int, pair: Any, like: Tensor) -> _Pair:
        """Return the pair of f or g, after checking it: torch would broadcast other shapes and promote other dtypes."""
        right = isinstance(pair, tuple) and len(pair) == 2 and all([isinstance(one, Tensor) for one in pair])  # noqa: C419
        if not right or any([one.shape != like.shape or one.dtype is not like.dtype for one in pair]):  # noqa: C419
            rule = f"must be a pair (log_scale, shift), each with the shape and dtype of {'x2' if i else 'x1'}, {describe(like)}"
            got = " and ".join(map(describe, pair)) if right else describe(pair)
            raise value_error(self.label, f"{'g(y1)' if i else 'f(x2)'} {rule}", got)
        return pair  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"affine_coupling({self.f!r}, {self.g!r})"


def _require_triple(name: str, x: Any) -> _Triple:
    """Return x or y, after checking that the third entry has the first axes of the other two."""
    if not isinstance(x, tuple) or len(x) != 3 or any([floating_complaint(one) for one in x]):  # noqa: C419 (as elsewhere)
        raise value_error("affine_coupling", f"{name} must be a tuple (x1, x2, log_det) of three floating tensors", describe(x))
    axes = x[2].shape
    if any([half.shape[: len(axes)] != axes or half.dtype is not x[2].dtype for half in x[:2]]):  # noqa: C419
        rule = f"log_det, the last of {name}, must have the dtype and the first axes of both halves"
        raise value_error("affine_coupling", rule, " and ".join(map(describe, x)))
    return x


def _require_gy(cache: Cache, gy: Any) -> _Triple:
    """Return gy, after checking that it has the shapes of y."""
    if not isinstance(gy, tuple) or len(gy) != 3:
        raise value_error("affine_coupling", "gy must be a tuple of three tensors", describe(gy))
    shapes = cache[2][0].shape, cache[3][0].shape, cache[4]
    for g, shape in zip(gy, shapes, strict=True):
        check_gy("affine_coupling", g, shape, cache[2][0])
    return gy


def _scale(x: Tensor, s: Tensor) -> _Pair:
    factor = torch.exp(s)
    return x * factor, factor


def _pull_back(half: _Pair, g: Tensor, k: Tensor) -> _Pair:
    """Return the gradients of the log-scale and of the shift, from the gradients of the half and of log_det."""
    return g * half[0] + k.reshape(*k.shape, *[1] * (g.dim() - k.dim())), g


def _sum(s: Tensor, log_det: Tensor) -> Tensor:
    """Sum over the axes that log_det lacks. For an empty list of axes torch would sum over all."""
    axes = [*range(log_det.dim(), s.dim())]
    return torch.sum(s, axes) if axes else s


def affine_coupling(f: Layer, g: Layer) -> AffineCoupling:
    """Scale and shift each half of x with the output of a layer on the other half, and add up the log-determinant.

        (s, t) = f(x₂)     y₁ = x₁ eˢ + t         (u, v) = g(y₁)     y₂ = x₂ eᵘ + v         ℓ' = ℓ + Σ s + Σ u
        x₂ = (y₂ - v) e⁻ᵘ  x₁ = (y₁ - t) e⁻ˢ      the inverse, g(y₁) first
        h  = g₁ + gradient of y₁ through g, from (g₂ x₂ eᵘ + k, g₂)                          (g₁, g₂, k) = gy
        gx = (h eˢ, g₂ eᵘ + gradient of x₂ through f, from (h x₁ eˢ + k, h), k)

    x and y are triples (x₁, x₂, ℓ): the halves, and for each row the logarithm of the absolute determinant of all layers so far,
    which starts as 0. A ``serial`` of couplings is a normalizing flow: if y has the log-density log p(y), x has log p(y) + ℓ',
    and ``inverse`` turns samples of y into samples of x. A run of couplings keeps one output, as with ``reversible``.

    Args:
        f: A layer from the second half to a pair (s, t), each with the shape of the first half. A ``Tanh`` on s bounds the scale.
        g: A layer from the first half to a pair (u, v), each with the shape of the second half.

    Shape:
        x ((N, ...), (N, ...), (N,)) → y of the same shapes. log_det can have any number of axes, which must be the first axes of
        both halves.

    Params:
        A pair: the params of f and the params of g.

    Cache:
        The caches of f and g, the pairs (x₁ eˢ, eˢ) and (x₂ eᵘ, eᵘ), and the shape of ℓ.

    Raises:
        ValueError: If x is not a tuple (x1, x2, log_det) of floating tensors, log_det does not have the first axes of x1 and x2,
            or f(x2) or g(y1) is not a pair of tensors with the shape and dtype of x1 or x2.

    References:
        Dinh, Sohl-Dickstein & Bengio 2017, eq. 4 to 8, once for each half.

    >>> import torch
    >>> from funcnet.layers.linear.linear import Linear
    >>> from funcnet.layers.shape.indexing import Chunk
    >>> layer = affine_coupling(Linear(3, 4) >> Chunk(2), Linear(2, 6) >> Chunk(2))
    >>> params, x = layer.init(0), (torch.ones(5, 2), torch.ones(5, 3), torch.zeros(5))
    >>> restored = layer.inverse(params, layer(params, x))
    >>> all(torch.allclose(a, b, atol=1e-6) for a, b in zip(restored, x, strict=True))
    True
    """
    return AffineCoupling(f, g)
