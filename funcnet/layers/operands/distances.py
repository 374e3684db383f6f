"""Distances: how near two vectors are, a pair of tensors in, one number for each pair of vectors out.

    CosineSimilarity   y = Σ a ⊙ b,  a = u / n(u),  b = v / n(v),  n(u) = max(‖u‖, ε)
                       gu = gy (b - y a) / n(u), without y a where ‖u‖ < ε;      gv: the same with a and b exchanged
    PairwiseDistance   y = ‖d‖ₚ,  d = u - v + ε      gu = gy ∂‖d‖ₚ/∂d,  gv = -gu
    CauchySimilarity   y = 1 / (1 + Σ w ⊙ d²),  d = u - v
                       gt = -gy y²      gw = Σ gt d², over rows      gu = 2 gt w ⊙ d,  gv = -gu

    ∂‖d‖ₚ/∂d = sign d ⊙ (|d| / ‖d‖ₚ)ᵖ⁻¹, and 0 where d or the norm is;  for p = ∞ sign d / k at the k largest, else 0

Both tensors are (..., features, ...) along ``dim``, or (..., features), and y is (...), without that axis. Gradients of what was
broadcast are summed over the axes along which it was repeated.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, explain_error, require_axis, require_floating, require_sizes
from funcnet.contract import Layer, Params, Rng, Shape, Size
from funcnet.errors import flag, number, size_or_none, value_error, whole_number
from funcnet.kernels import operands as kernels
from funcnet.random import Key, as_key
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


def degree(layer: Any, attribute: Any, got: Any) -> None:
    """Validate the degree of a norm: any number but nan, infinities among them."""
    if not isinstance(got, float) or not math.isinf(got):
        number()(layer, attribute, got)


def norm_slope(d: Tensor, norm: Tensor, p: float, dims: list[int]) -> Tensor:
    """Return the derivative of the p-norm along the axes ``dims``, which the norm has kept; 0 where it has none."""
    if p == 0:
        return torch.zeros_like(d)
    if math.isinf(p):
        reached = (d.abs() == norm).to(d.dtype)
        return torch.sign(d) * reached / reached.sum(dims, keepdim=True)
    share = d / norm if p == 2 else torch.sign(d) * (d.abs() / norm) ** (p - 1)
    return torch.where((d == 0) | (norm == 0), 0.0, share)


def _pair(layer: Layer, x: Any) -> Pair:
    """Return the pair as it is; it must be of two floating tensors of one dtype that broadcast together."""
    if not isinstance(x, tuple) or len(x) != 2:
        raise value_error(layer, "x must be a tuple of 2 tensors", x)
    if require_floating(layer, {}, x[0]).dtype != require_floating(layer, {}, x[1]).dtype:
        raise value_error(layer, "the tensors must have one dtype", f"{x[0].dtype} and {x[1].dtype}")
    return x


def _broadcast(layer: Layer, x: Pair) -> Pair:
    try:
        u, v = torch.broadcast_tensors(*x)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise _unfit(layer, x, "the tensors must broadcast together") from None
    return u, v


def _unfit(layer: Layer, x: Pair, rule: str) -> ValueError:
    return value_error(layer, rule, f"shapes {tuple(x[0].shape)} and {tuple(x[1].shape)}")


def _unbroadcast(gu: Tensor, gv: Tensor, shapes: tuple[Shape, Shape]) -> Pair:
    return kernels.unbroadcast(gu, shapes[0]), kernels.unbroadcast(gv, shapes[1])


@frozen
class CosineSimilarity(Layer):
    """Cosine of the angle between two vectors along ``dim``: 1 for one direction, 0 for a right angle, -1 for opposites.

    A vector shorter than ``eps`` is divided by ``eps``, not by its length, and so is its gradient the one of a division by a
    constant; torch there still takes the length's gradient in.

    Params   none.
    Cache    both tensors, their lengths, and ``y`` with the axis ``dim``.
    Raises   ``ValueError`` for an ``eps`` that is not above 0, and when ``x`` is not a pair of floating tensors that broadcast
             together and have an axis ``dim``.
    Source   ``torch.nn.CosineSimilarity``'s formula, as torch computes it: each length is bounded for itself.
    """

    dim: int = field(default=1, validator=whole_number)
    eps: float = field(default=1e-8, validator=number(above=0.0))

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Any]:
        require_floating(self, params, _pair(self, x)[0])
        u, v = _broadcast(self, x)
        dim = require_axis(self, u, self.dim) % max(u.dim(), 1)
        lengths = [torch.linalg.vector_norm(one, dim=[dim] * (u.dim() > 0), keepdim=True).clamp_min(self.eps) for one in (u, v)]
        y = (u / lengths[0] * (v / lengths[1])).sum([dim] * (u.dim() > 0), keepdim=True)
        return self._as_y(y, dim), (u, v, *lengths, y, (tuple(x[0].shape), tuple(x[1].shape)))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Params, Pair]:
        u, v, nu, nv, y, shapes = cache
        g = check_gy(self, gy, self._as_y(y, self.dim).shape).reshape(y.shape)
        a, b = u / nu, v / nv
        gu = g * (b - torch.where(nu > self.eps, y, 0.0) * a) / nu
        gv = g * (a - torch.where(nv > self.eps, y, 0.0) * b) / nv
        return params, _unbroadcast(gu, gv, shapes)

    def _as_y(self, y: Tensor, dim: int) -> Tensor:
        return y.squeeze(dim) if y.dim() else y


@frozen
class PairwiseDistance(Layer):
    """p-norm of the difference of two vectors, the last axis; ``eps`` is added to each difference, as in ``torch.nn``.

    Params   none.
    Cache    the difference, its norm, and the shapes of both tensors.
    Raises   ``ValueError`` for a ``p`` or an ``eps`` that is no number, and when ``x`` is not a pair of floating tensors that
             broadcast together and have an axis.
    Source   ``torch.nn.PairwiseDistance``'s formula.
    """

    p: float = field(default=2.0, validator=degree)
    eps: float = field(default=1e-6, validator=number())
    keepdim: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Any]:
        u, v = _pair(self, x)
        require_floating(self, params, u)
        try:
            d = u - v + self.eps
        except RuntimeError:
            raise _unfit(self, x, "the tensors must broadcast together") from None
        if not d.dim() or (self.p in (math.inf, -math.inf) and not d.shape[-1]):
            raise _unfit(self, x, "the tensors must have an axis")
        y = torch.linalg.vector_norm(d, self.p, [-1], keepdim=True)
        return self._as_y(y), (d, y, (tuple(u.shape), tuple(v.shape)))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Params, Pair]:
        d, y, shapes = cache
        gd = check_gy(self, gy, self._as_y(y).shape).reshape(y.shape) * norm_slope(d, y, self.p, [-1])
        return params, _unbroadcast(gd, -gd, shapes)

    def _as_y(self, y: Tensor) -> Tensor:
        return y if self.keepdim else y.squeeze(-1)


@frozen
class CauchySimilarity(Layer):
    """Similarity 1 / (1 + weighted squared distance) of two vectors, the last axis, with a learned weight for each feature.

    Params   ``weight`` (in_features,), ones.
    Cache    the difference, ``y``, and the shapes of both tensors.
    Raises   ``ValueError`` for a size below 1, params that are not this layer's, and when ``x`` is not a pair of floating tensors
             that broadcast together, with a last axis of ``in_features`` and the dtype of the params.
    Source   Chen 2013; thinc's ``CauchySimilarity``.
    """

    in_features: Size = field(validator=size_or_none)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return {"weight": torch.ones(require_sizes(self).in_features, device=as_key(rng).device)}

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Any]:
        u, v = _pair(self, x)
        try:
            d, w = u - v, params["weight"]
            if len(params) != 1 or w.shape != (self.in_features,) or d.shape[-1] != self.in_features or w.dtype != d.dtype:
                raise Misfit
        except Exception as error:
            raise explain_error(self, params, x, error) from None
        y = 1 / (1 + torch.matmul(d * d, w))
        return y, (d, y, (tuple(u.shape), tuple(v.shape)))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Params, Pair]:
        gd = self._slope(cache, gy) * 2 * params["weight"] * cache[0]
        return self.grads(params, cache, gy), _unbroadcast(gd, -gd, cache[2])

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Params:
        d = cache[0].reshape(-1, self.in_features)
        return {"weight": torch.matmul(self._slope(cache, gy).reshape(-1), d * d)}

    def _slope(self, cache: Any, gy: Tensor) -> Tensor:
        y: Tensor = cache[1]
        return (-check_gy(self, gy, y.shape) * y * y).unsqueeze(-1)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.in_features,)}

    def complaint(self, x: Pair) -> str | None:
        try:
            shape = (x[0] - x[1]).shape
        except RuntimeError:
            return "the tensors must broadcast together"
        if shape[-1:] != (self.in_features,):
            return f"the last axis of both tensors must be in_features={self.in_features}"
        return None
