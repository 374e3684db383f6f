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

from funcnet.checks import Misfit, check_gy, kind_of, require_axis, require_params, sizes_complaint
from funcnet.contract import Grads, Params, Rng, Shape, Size
from funcnet.errors import describe, flag, is_number, number, size_or_none, valid_if, value_error, whole_number
from funcnet.kernels import operands as kernels
from funcnet.kernels.extremes import length
from funcnet.layers.operands.arithmetic import Operation, shapes_of
from funcnet.precision import in_single, rounded
from funcnet.random.keys import Key, as_key
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


degree = valid_if(lambda got: is_number(got) or got in (math.inf, -math.inf), "a finite number, or infinity")
"""Validate the degree of a norm: any number but NaN."""


def norm_slope(d: Tensor, norm: Tensor, p: float, dims: list[int]) -> Tensor:
    """Return the derivative of the p-norm along the axes ``dims``, which the norm has kept; 0 where it has none."""
    if p == 0:
        return torch.zeros_like(d)
    if math.isinf(p):
        reached = (d.abs() == norm).to(d.dtype)
        return torch.sign(d) * reached / reached.sum(dims, keepdim=True)
    if p == 2:  # 0 where d is: 0.05 ms for 2048×256, where a choice for every element takes 0.69
        return d / norm.masked_fill(norm == 0, 1.0)
    return torch.where((d == 0) | (norm == 0), 0.0, torch.sign(d) * (d.abs() / norm) ** (p - 1))


def _unbroadcast(gu: Tensor, gv: Tensor, shapes: tuple[Shape, Shape]) -> Pair:
    return kernels.unbroadcast(gu, shapes[0]), kernels.unbroadcast(gv, shapes[1])


@frozen
class CosineSimilarity(Operation):
    """Cosine of the angle between two vectors along ``dim``: 1 for one direction, 0 for a right angle, -1 for opposites.

    A vector shorter than ``eps`` is divided by ``eps``, not by its length, and so is its gradient the one of a division by a
    constant; torch there still takes the length's gradient in.

    Params   none.
    Cache    both tensors, their lengths and ``y`` with the axis ``dim``, both in single precision at least.
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
        u, v = torch.broadcast_tensors(*self.operands(params, x))  # type: ignore[no-untyped-call]
        dims = [require_axis(self, u, self.dim)][: u.dim()]  # a 0-d tensor is its own axis
        lengths = [length(one, 2, dims, self.eps).clamp_min(self.eps) for one in (u, v)]
        y = (u / lengths[0] * (v / lengths[1])).sum(dims, keepdim=True)
        return rounded(self._without_dim(y), u), (u, v, *lengths, y, shapes_of(x))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Pair]:
        u, v, nu, nv, y, shapes = cache
        g = check_gy(self, gy, self._without_dim(y).shape, u).reshape(y.shape)
        a, b = u / nu, v / nv
        gu = g * (b - torch.where(nu > self.eps, y, 0.0) * a) / nu
        gv = g * (a - torch.where(nv > self.eps, y, 0.0) * b) / nv
        return params, _unbroadcast(rounded(gu, u), rounded(gv, v), shapes)

    def _without_dim(self, y: Tensor) -> Tensor:
        return y.squeeze(self.dim) if y.dim() else y


@frozen
class PairwiseDistance(Operation):
    """p-norm of the difference of two vectors, the last axis; ``eps`` is added to each difference, as in ``torch.nn``.

    Params   none.
    Cache    the difference and its norm, in single precision at least, the shapes of both tensors, and an empty tensor of their
             dtype and device.
    Raises   ``ValueError`` for a ``p`` or an ``eps`` that is no number, and when ``x`` is not a pair of floating tensors that
             broadcast together and have an axis.
    Source   ``torch.nn.PairwiseDistance``'s formula.
    """

    p: float = field(default=2.0, validator=degree)
    eps: float = field(default=1e-6, validator=number())
    keepdim: bool = field(default=False, validator=flag)

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Any]:
        u, v = self.operands(params, x)
        d = in_single(u) - v + self.eps
        if not d.dim():
            raise Misfit
        y = length(d, self.p, [-1], abs(self.eps) / 1e4)
        if y.dtype is not d.dtype:  # the difference too may be more than its dtype has
            d = u.double() - v + self.eps
            y = length(d, self.p, [-1])
        return rounded(self._without_dim(y), u), (d, y, shapes_of(x), kind_of(u))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Pair]:
        d, y, shapes, kind = cache
        gd = check_gy(self, gy, self._without_dim(y).shape, kind).reshape(y.shape) * norm_slope(d, y, self.p, [-1])
        gd = rounded(gd, kind)
        return params, _unbroadcast(gd, -gd, shapes)

    def _without_dim(self, y: Tensor) -> Tensor:
        return y if self.keepdim else y.squeeze(-1)

    def complaint(self, x: Pair) -> str:
        return super().complaint(x) or "the operands must have an axis that is not empty"


@frozen
class CauchySimilarity(Operation):
    """Similarity 1 / (1 + weighted squared distance) of two vectors, the last axis, with a learned weight for each feature.

    Params   ``weight`` (in_features,), ones.
    Cache    the difference, ``y``, and the shapes of both tensors.
    Raises   ``ValueError`` for a size below 1, params of another layer, and when ``x`` is not a pair of floating tensors
             that broadcast together, with a last axis of ``in_features`` and the dtype of the params.
    Source   Chen 2013; thinc's ``CauchySimilarity``.
    """

    undecayed = ("weight",)

    in_features: Size = field(validator=size_or_none)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return {"weight": torch.ones(self.in_features, device=as_key(rng).device)}

    def apply(self, params: Params, x: Pair, rng: Rng = None) -> tuple[Tensor, Any]:
        u, v = self.operands({}, x)
        require_params(self, params)
        d = u - v
        y = 1 / (1 + torch.matmul(d * d, params["weight"]))
        return y, (d, y, shapes_of(x))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, Pair]:
        gd = self._gradient_of_distance(cache, gy) * 2 * self._weight(params, cache[0]) * cache[0]
        return self.grads(params, cache, gy), _unbroadcast(gd, -gd, cache[2])

    def grads(self, params: Params, cache: Any, gy: Tensor) -> Grads:
        d = cache[0].reshape(-1, self.in_features)
        return {"weight": torch.matmul(self._gradient_of_distance(cache, gy).reshape(-1), d * d)}

    def _weight(self, params: Params, d: Tensor) -> Tensor:
        """Return the weight, which must have the kind of d: a product would promote it."""
        require_params(self, params)
        weight: Tensor = params["weight"]
        if weight.dtype is not d.dtype or weight.device != d.device or weight.layout is not torch.strided:
            raise value_error(
                self, f"weight must be a dense tensor of {d.dtype} on {d.device}, as x", f"{describe(weight)} on {weight.device}"
            )
        return weight

    def _gradient_of_distance(self, cache: Any, gy: Tensor) -> Tensor:
        y: Tensor = cache[1]
        return (-check_gy(self, gy, y.shape, y) * y * y).unsqueeze(-1)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.in_features,)}

    def complaint(self, x: Pair) -> str | None:
        return super().complaint(x) or sizes_complaint(self, x[0] - x[1])
