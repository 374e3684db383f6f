"""Normalization of rows: each is shifted and scaled by its own statistics, then affinely mapped element by element.

Over the m elements of a row of x (..., *normalized_shape), γ and β being of ``normalized_shape``:

    LayerNorm   μ = Σ x / m     r = 1 / √(Σ (x - μ)² / m + ε)     x̂ = (x - μ) r     y = γ x̂ + β
                gβ = Σ gy       gγ = Σ gy x̂       over all rows
                gx = r (g - Σ g / m - x̂ Σ g x̂ / m)                with g = γ gy, over the row
    RMSNorm     r = 1 / √(Σ x² / m + ε)           x̂ = x r         y = γ x̂
                gγ = Σ gy x̂                       gx = r (g - x̂ Σ g x̂ / m)
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, check_gy, explain_error, require_sizes
from funcnet.contract import Layer, Params, Rng, Shape
from funcnet.errors import describe, flag, is_whole, value_error
from funcnet.kernels import norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.random import Key
from funcnet.value import frozen

"""The sizes of the last axes, or ``None`` for that of the last one, to be inferred; ``Any`` as in ``layer.Size``."""


def _as_shape(given: Any) -> Any:
    """Make a tuple of one size, or of a list of sizes."""
    return (given,) if is_whole(given) else tuple(given) if isinstance(given, (tuple, list)) else given


def _sizes(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None and (not isinstance(got, tuple) or not got or not all(is_whole(one) and one >= 1 for one in got)):
        rule = "normalized_shape must be a whole number of at least 1, or a tuple of them"
        raise value_error(type(layer).__name__, rule, repr(got) if isinstance(got, tuple) else describe(got))


def _positive_or_none(layer: Any, attribute: Any, got: Any) -> None:
    if got is not None:
        norm_params.positive(layer, attribute, got)


def _checked(layer: "LayerNorm | RMSNorm", params: Params, x: Tensor) -> tuple[int, ...]:
    """Return the axes of a row, after what no kernel complains about."""
    shape = layer.normalized_shape
    if x.shape[-len(shape) :] != shape or not x.is_floating_point():
        raise LookupError
    if len(params) != len(layer.param_shapes()):
        raise Misfit
    for p in params.values():
        if p.shape != shape or p.dtype is not x.dtype:
            raise Misfit
    return tuple(range(x.dim() - len(shape), x.dim()))


def _fault(layer: "LayerNorm | RMSNorm", x: Tensor) -> str | None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return "x must be a floating tensor"
    if x.shape[-len(layer.normalized_shape) :] != layer.normalized_shape:
        return f"the last axes of x must be normalized_shape={layer.normalized_shape}"
    return None


@frozen
class LayerNorm(Layer):
    """Layer normalization: mean 0 and variance 1 over the last axes, those of ``normalized_shape``; every axis before is batch.

    ``normalized_shape=None`` is the last axis, for ``infer_sizes`` to find.

    >>> LayerNorm(4).init(0)["weight"]
    tensor([1., 1., 1., 1.])

    Params   ``weight`` γ, ones, and ``bias`` β, zeros, of ``normalized_shape``; neither with ``elementwise_affine=False``, and
             no ``bias`` with ``bias=False``.
    Cache    ``x``, the rows' means and their 1 / √(σ² + ε).
    Raises   ``ValueError`` for an ε that is not positive, for params that are not this layer's, and an ``x`` with other last
             axes or another dtype.
    Source   Ba, Kiros & Hinton 2016; the names and ε are ``torch.nn.LayerNorm``'s.
    """

    normalized_shape: Shape | Any = field(converter=_as_shape, validator=_sizes)
    eps: float = field(default=1e-5, validator=norm_params.positive)
    elementwise_affine: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, validator=flag)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"normalized_shape": -1}

    def init(self, rng: Key | int) -> Params:
        return norm_params.first(rng, require_sizes(self).param_shapes())

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        try:
            _checked(self, params, x)
            w, b = params.get("weight"), params.get("bias")
            y, mean, r = kernels.layer_norm(x, self.normalized_shape, w, b, self.eps)
            return y, (x, mean, r)
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        return self._back(params, cache, gy, needs_x=True, needs_params=True)

    def grads(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Params:
        return self._back(params, cache, gy, needs_x=False, needs_params=True)[0]

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, needs_x=True, needs_params=False)[1]

    def _back(
        self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor, *, needs_x: bool, needs_params: bool
    ) -> tuple[Params, Tensor]:
        x, mean, r = cache
        mask = [needs_x, needs_params and "weight" in params, needs_params and "bias" in params]
        rows = check_gy(self, gy, x.shape), x, self.normalized_shape
        gx, gw, gb = kernels.layer_norm_backward(*rows, (mean, r), params.get("weight"), params.get("bias"), mask)
        return norm_params.gparams(params, gw, gb), gx

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.elementwise_affine:
            return {}
        shape = self.normalized_shape
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}

    def complaint(self, x: Tensor) -> str | None:
        return _fault(self, x)


@frozen
class RMSNorm(Layer):
    """Root mean square normalization: mean square 1 over the last axes, those of ``normalized_shape``, and no shift.

    ``eps=None`` is the distance from 1 to the next number in x's dtype, or in float32 where x is of half precision.
    ``normalized_shape=None`` is the last axis, for ``infer_sizes`` to find.

    Params   ``weight`` γ, ones, of ``normalized_shape``; absent with ``elementwise_affine=False``.
    Cache    ``x``, and the rows' 1 / √(x̄² + ε).
    Raises   ``ValueError`` for an ε that is not positive, for params that are not this layer's, and an ``x`` with other last
             axes or another dtype.
    Source   Zhang & Sennrich 2019, eq. 4; the names and ε are ``torch.nn.RMSNorm``'s.
    """

    normalized_shape: Shape | Any = field(converter=_as_shape, validator=_sizes)
    eps: float | None = field(default=None, validator=_positive_or_none)
    elementwise_affine: bool = field(default=True, validator=flag)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"normalized_shape": -1}

    def init(self, rng: Key | int) -> Params:
        return norm_params.first(rng, require_sizes(self).param_shapes())

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        try:
            axes = _checked(self, params, x)
            eps = self.eps or torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
            y, r = kernels.rms_norm(x, axes, params.get("weight"), eps)
            return y, (x, r)
        except Exception as error:
            raise explain_error(self, params, x, error) from None

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        return self._back(params, cache, gy, [True, self.elementwise_affine])

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Params:
        return self._back(params, cache, gy, [False, self.elementwise_affine])[0]

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, [True, False])[1]

    def _back(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor, mask: list[bool]) -> tuple[Params, Tensor]:
        x, r = cache
        rows = check_gy(self, gy, x.shape), x, self.normalized_shape
        gx, gw = kernels.rms_norm_backward(*rows, r, params.get("weight"), mask)
        return {"weight": gw} if self.elementwise_affine else params, gx

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}

    def complaint(self, x: Tensor) -> str | None:
        return _fault(self, x)
