"""Normalization of rows: each is shifted and scaled by its own statistics, then affinely mapped element by element.

Over the m elements of a row of x (..., *normalized_shape), γ and β being of ``normalized_shape``:

    LayerNorm   μ = Σ x / m     r = 1 / √(Σ (x - μ)² / m + ε)     x̂ = (x - μ) r     y = γ x̂ + β
                gβ = Σ gy       gγ = Σ gy x̂       over all rows
                gx = r (g - Σ g / m - x̂ Σ g x̂ / m)                with g = γ gy, over the row
    RMSNorm     r = 1 / √(Σ x² / m + ε)           x̂ = x r         y = γ x̂
                gγ = Σ gy x̂                       gx = r (g - x̂ Σ g x̂ / m)

With ``dim`` the row is that axis, such as the channels at each place of an image, x (N, channels, height, width).
"""

from abc import abstractmethod
from typing import Any

import torch
from attrs import field, validators
from torch import Tensor

from funcnet.checks import Misfit, check_gy, check_param, floating_complaint, several_sizes_complaint
from funcnet.contract import Grads, Layer, Params, Rng, Shape
from funcnet.errors import as_tuple, fields_error, flag, whole_number, whole_numbers
from funcnet.kernels import norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class _RowNorm(Layer):
    """What LayerNorm and RMSNorm share: the shape of a row, ``None`` for the size of the axis ``dim``, to be inferred."""

    undecayed = ("weight",)

    normalized_shape: Shape | Any = field(converter=as_tuple, validator=whole_numbers(1, optional=True))

    @property
    @abstractmethod
    def dim(self) -> int:
        """The axis that is normalized, and with -1 the last axes: a field of the subclass."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"normalized_shape": self.dim}

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def _require_rows(self, params: Any, x: Tensor, count: int) -> None:
        """Raise ``Misfit`` unless x and the params have rows of ``normalized_shape`` and one dtype: kernels notice only some."""
        shape, dtype, cpu = self.normalized_shape, x.dtype, x.is_cpu
        if x.shape[-len(shape) :] != shape or not dtype.is_floating_point or len(params) != count:
            raise Misfit
        for leaf in params.values():
            if leaf.shape != shape or leaf.dtype is not dtype or leaf.is_cpu is not cpu:
                raise Misfit

    def __attrs_post_init__(self) -> None:
        if self.dim != -1 and isinstance(self.normalized_shape, tuple) and len(self.normalized_shape) > 1:
            raise fields_error(self, "dim must be -1 for a normalized_shape of several axes", "normalized_shape", "dim")

    def _moved(self, x: Tensor) -> Tensor:
        """Return x with the axis ``dim`` last."""
        return x if self.dim == -1 else x.movedim(self.dim, -1)

    def _moved_back(self, x: Tensor) -> Tensor:
        """Return x with its last axis as the axis ``dim``."""
        return x if self.dim == -1 else x.movedim(-1, self.dim)

    def _checked_gy(self, gy: Tensor, x: Tensor) -> Tensor:
        """Return gy with the axis ``dim`` moved last, like x."""
        return self._moved(check_gy(self, gy, x.shape if self.dim == -1 else self._moved_back(x).shape, x))

    @abstractmethod
    def param_shapes(self) -> dict[str, tuple[int, ...]]: ...

    def complaint(self, x: Tensor) -> str | None:
        shape = self.normalized_shape
        if self.dim != -1:
            return floating_complaint(x) or several_sizes_complaint(x, (self.dim,), "normalized_shape", shape)
        if floating_complaint(x) or x.shape[-len(shape) :] == shape:
            return floating_complaint(x)
        return f"the last axes of x must be normalized_shape={shape}"


@frozen
class LayerNorm(_RowNorm):
    """Layer normalization: mean 0 and variance 1 over the last axes, those of ``normalized_shape``; every axis before is batch.

    ``normalized_shape=None`` is the last axis, for ``infer_sizes`` to find. With ``dim`` one other axis is normalized:
    ``LayerNorm(64, dim=1)`` takes the channels at each place of an image (N, 64, height, width) without permuting it by hand.

    >>> LayerNorm(4).init(0)["weight"]
    tensor([1., 1., 1., 1.])

    Params   ``weight`` γ, ones, and ``bias`` β, zeros, of ``normalized_shape``; neither with ``elementwise_affine=False``, and
             no ``bias`` with ``bias=False``.
    Cache    ``x``, with the axis ``dim`` last, the rows' means and their 1 / √(σ² + ε).
    Raises   ``ValueError`` for an ε that is not positive, for params of another layer, and an ``x`` with other last
             axes or another dtype.
    Source   Ba, Kiros & Hinton 2016; the names and ε are ``torch.nn.LayerNorm``'s.
    """

    eps: float = field(default=1e-5, validator=norm_params.positive)
    elementwise_affine: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, validator=flag)
    dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        x = self._moved(x)
        affine = self.elementwise_affine
        self._require_rows(params, x, affine * (1 + self.bias))
        w, b = params["weight"] if affine else None, params["bias"] if affine and self.bias else None
        y, mean, r = kernels.layer_norm(x, self.normalized_shape, w, b, self.eps)
        return self._moved_back(y), (x, mean, r)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return self._back(params, cache, gy, needs_x=True, needs_params=True)

    def grads(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Grads:
        return self._back(params, cache, gy, needs_x=False, needs_params=True)[0]

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, needs_x=True, needs_params=False)[1]

    def _back(
        self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor, *, needs_x: bool, needs_params: bool
    ) -> tuple[Params, Tensor]:
        x, mean, r = cache
        rows = self._checked_gy(gy, x), x, self.normalized_shape
        w = check_param(self, params, "weight", self.normalized_shape, x) if self.elementwise_affine else None
        b = w if self.bias else None  # whose numbers the kernel does not read
        mask = [needs_x, needs_params and w is not None, needs_params and b is not None]
        gx, gw, gb = kernels.layer_norm_backward(*rows, (mean, r), w, b, mask)
        return norm_params.gparams(params, gw, gb), gx if gx is None else self._moved_back(gx)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.elementwise_affine:
            return {}
        shape = self.normalized_shape
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}


@frozen
class RMSNorm(_RowNorm):
    """Root mean square normalization: mean square 1 over the last axes, those of ``normalized_shape``, and no shift.

    ``eps=None`` is the distance from 1 to the next number in x's dtype, or in float32 where x is of half precision.
    ``normalized_shape=None`` is the last axis, for ``infer_sizes`` to find. With ``dim`` one other axis is normalized, as the
    channels of images by ``RMSNorm(64, dim=1)``.

    Params   ``weight`` γ, ones, of ``normalized_shape``; absent with ``elementwise_affine=False``.
    Cache    ``x``, with the axis ``dim`` last, and the rows' 1 / √(x̄² + ε).
    Raises   ``ValueError`` for an ε that is not positive, for params of another layer, and an ``x`` with other last
             axes or another dtype.
    Source   Zhang & Sennrich 2019, eq. 4; the names and ε are ``torch.nn.RMSNorm``'s.
    """

    eps: float | None = field(default=None, validator=validators.optional(norm_params.positive))
    elementwise_affine: bool = field(default=True, validator=flag)
    dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = self._moved(x)
        self._require_rows(params, x, self.elementwise_affine)
        axes = tuple(range(-len(self.normalized_shape), 0))
        eps = self.eps or torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        y, r = kernels.rms_norm(x, axes, params["weight"] if self.elementwise_affine else None, eps)
        return self._moved_back(y), (x, r)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return self._back(params, cache, gy, [True, self.elementwise_affine])

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Grads:
        return self._back(params, cache, gy, [False, self.elementwise_affine])[0]

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, [True, False])[1]

    def _back(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor, mask: list[bool]) -> tuple[Params, Tensor]:
        x, r = cache
        rows = self._checked_gy(gy, x), x, self.normalized_shape
        w = check_param(self, params, "weight", self.normalized_shape, x) if self.elementwise_affine else None
        gx, gw = kernels.rms_norm_backward(*rows, r, w, mask)
        gx = gx if gx is None else self._moved_back(gx)
        return {"weight": gw} if self.elementwise_affine else params, gx

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}
