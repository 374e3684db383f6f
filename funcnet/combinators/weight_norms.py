"""Weight norm and spectral norm: a layer's weight w is computed from other, trained tensors; y = f(w, x).

    weight norm     w = g v / ‖v‖             gg = ⟨gw, v⟩ / ‖v‖            gv = (g / ‖v‖) (gw - (gg / ‖v‖) v)
    spectral norm   w = r / σ, σ = uᵀ r v     gr = gw / σ - (⟨gw, r⟩ / σ²) u vᵀ

gw, gx = f's vjp of gy. ‖v‖ and ⟨,⟩ of weight norm go along all axes but ``dim``. Spectral norm holds u and v, and r and u vᵀ
are matrices whose rows are the entries along ``dim``.
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.combinators.parametrization import Parametrization, Parametrized
from funcnet.contract import Cache, Grads, Layer, Params, Rng
from funcnet.errors import adds_location, number, size, value_error, whole
from funcnet.kernels import parametrization as kernels
from funcnet.kernels.extremes import length
from funcnet.kernels.tracing import may_search
from funcnet.precision import in_single, rounded
from funcnet.random.keys import Key
from funcnet.value import frozen


def _axis_or_none(value: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        whole(0)(value, attribute, got)


@frozen
class _WeightNorm(Parametrization):
    """Magnitude times direction, from the pair (g, v)."""

    label = "weight_norm"

    dim: int | None = field(default=0, validator=_axis_or_none)

    def initial(self, rng: Key | int, w: Tensor) -> tuple[Params, tuple[Tensor, Tensor]]:
        if self.dim is not None and self.dim >= w.dim():
            raise value_error("weight_norm", f"the weight must have an axis dim={self.dim}", w)
        return {}, (rounded(kernels.weight_length(w, self.dim), w), w)

    def call(self, layer: Layer, name: str) -> str:
        return f"weight_norm({layer!r}, {name!r}, {self.dim!r})"

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Cache]:
        g, v = x
        if g.shape != (() if self.dim is None else tuple([n if i == self.dim else 1 for i, n in enumerate(v.shape)])):
            raise value_error("weight_norm", "original0 must have an entry for each along dim, with the axes of original1", g)
        if g.dtype is not v.dtype:
            raise value_error("weight_norm", f"original0 must have the dtype of original1, {v.dtype}", g)
        w, *kept = kernels.weight_norm(v, g, self.dim)
        return w, (g, v, *kept)

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, tuple[Tensor, Tensor]]:
        g, v, lengths, ordinary = cache
        gv, gg = kernels.weight_norm_backward(gy, v, g, lengths, self.dim, ordinary)
        return params, (gg, gv)


@adds_location("weight_norm")
def weight_norm(layer: Layer, name: str = "weight", dim: int | None = 0) -> Parametrized:
    """Train a weight's magnitudes, ``original0``, apart from its directions, ``original1``; the names and ``dim`` are torch's.

    There is one magnitude for each entry along the axis ``dim``, with ``None`` a single one. At first the weight is the layer's.
    A direction of 0 is divided by 1 instead of its length 0: it gives a weight of 0 with gradients, where torch has NaN.

    Source   Salimans & Kingma 2016, section 2.
    """
    return Parametrized(layer, _WeightNorm(dim), name)


@frozen
class _SpectralNorm(Parametrization):
    """A matrix over its largest singular value, as two vectors that are kept estimate it."""

    label = "spectral_norm"

    n_power_iterations: int = field(default=1, validator=size)
    eps: float = field(default=1e-12, validator=number(above=0.0))
    dim: int = field(default=0, validator=whole(0))

    non_trainable = ("_u", "_v")

    def initial(self, rng: Key | int, w: Tensor) -> tuple[Params, Tensor]:
        if w.dim() < 2 or self.dim >= w.dim():
            raise value_error("spectral_norm", f"the weight must have two axes at least, and an axis dim={self.dim}", w)
        matrix = self._matrix(w)
        vectors = [random.normal(random.fold_in(rng, i), (n,)).to(w.dtype) for i, n in enumerate(matrix.shape)]
        u, v = map(self._unit, vectors)
        return self._iterated(matrix, u, v, 15), w  # as many as torch begins with

    def call(self, layer: Layer, name: str) -> str:
        return f"spectral_norm({layer!r}, {name!r}, {self.n_power_iterations!r}, {self.eps!r}, {self.dim!r})"

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Cache]:
        wide = in_single(x)
        matrix = self._matrix(wide)
        u, v = map(in_single, self._vectors(params, x, matrix))
        sigma = u @ (matrix @ v)
        if not may_search(sigma) or not sigma.item():  # a look takes 0.4 µs, and the choice 3
            sigma = torch.where(sigma == 0, 1.0, sigma)
        return rounded(wide / sigma, x), (x, sigma)

    def vjp(self, params: Params, cache: Cache, gy: Tensor) -> tuple[Grads, Tensor]:
        x, sigma = cache
        w = in_single(x) / sigma
        u, v = map(in_single, self._vectors(params, x, self._matrix(x)))
        outer = torch.outer(u, v).reshape(x.movedim(self.dim, 0).shape).movedim(0, self.dim)
        return {"_u": None, "_v": None}, rounded((gy - (gy * w).sum() * outer) / sigma, x)

    def update_stats(self, params: Params, cache: Cache) -> Params:
        matrix = self._matrix(cache[0])
        return self._iterated(matrix, *self._vectors(params, cache[0], matrix), self.n_power_iterations)

    def _vectors(self, params: Params, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v, which must fit the matrix of x: products would take others too."""
        for name, n in zip(("_u", "_v"), matrix.shape, strict=True):
            leaf = params[name]
            if leaf.shape != (n,) or leaf.dtype is not x.dtype or leaf.is_cpu is not x.is_cpu:
                rule = f"{name} must have the shape {(n,)}, and the dtype and device of the original"
                raise value_error("spectral_norm", rule, leaf)
        return params["_u"], params["_v"]

    def _iterated(self, matrix: Tensor, u: Tensor, v: Tensor, times: int) -> Params:
        for _ in range(times):
            u = self._unit(matrix @ v)
            v = self._unit(matrix.mT @ u)
        return {"_u": u, "_v": v}

    def _unit(self, x: Tensor) -> Tensor:
        return rounded(x / length(x, 2, [0], self.eps).clamp_min(self.eps), x)

    def _matrix(self, w: Tensor) -> Tensor:
        return w.movedim(self.dim, 0).flatten(1)


@adds_location("spectral_norm")
def spectral_norm(
    layer: Layer, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Parametrized:
    """Divide a weight, ``name``, by its largest singular value, as ``torch.nn.utils.parametrizations.spectral_norm`` does.

    ``apply`` reads the singular vectors in params, ``0._u`` and ``0._v``, which have no gradient; ``update_stats`` moves them by
    ``n_power_iterations`` on the weight that ``apply`` had, so that a step goes by the vectors that the step before left, where
    torch iterates before it. No vector is divided by less than ``eps``, and a singular value of 0 counts as 1. ``dim`` is the
    axis of the matrix's rows: by default 0, or 1 of a transposed convolution.

    Source   Miyato et al. 2018, algorithm 1.
    """
    transposed = getattr(layer, "weight_output_axis", None) == 1  # Parametrized refuses what is no layer
    return Parametrized(layer, _SpectralNorm(n_power_iterations, eps, int(transposed) if dim is None else dim), name)
