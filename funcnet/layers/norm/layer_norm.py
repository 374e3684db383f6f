"""Normalization of rows: shift and scale each row with its own statistics, then map it affinely, element by element.

A row holds the m elements of the last axes of x (..., *normalized_shape). γ and β have the shape ``normalized_shape``. With
``dim`` a row is another axis, for example the channels at each position of an image, x (N, channels, height, width).
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
    """Base of LayerNorm and RMSNorm: the shape of a row, and the checks of x and params."""

    undecayed = ("weight",)

    normalized_shape: Shape | Any = field(converter=as_tuple, validator=whole_numbers(1, optional=True))

    @property
    @abstractmethod
    def dim(self) -> int:
        """The axis to normalize; -1 for the last axes. A field of the subclass."""

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"normalized_shape": self.dim}

    @property
    def batch_dependent(self) -> bool:
        return self.dim == 0

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def _require_rows(self, params: Any, x: Tensor, count: int) -> None:
        """Raise ``Misfit`` unless x and params have rows of ``normalized_shape`` and one dtype: kernels check only part of it."""
        shape, dtype, cpu = self.normalized_shape, x.dtype, x.is_cpu
        if x.shape[-len(shape) :] != shape or not dtype.is_floating_point or len(params) != count:
            raise Misfit
        for leaf in params.values():
            if leaf.shape != shape or leaf.dtype is not dtype or leaf.is_cpu is not cpu:
                raise Misfit

    def __attrs_post_init__(self) -> None:
        if self.dim != -1 and isinstance(self.normalized_shape, tuple) and len(self.normalized_shape) > 1:
            raise fields_error(self, "dim must be -1 for a normalized_shape of several axes", "normalized_shape", "dim")

    def _move_dim_last(self, x: Tensor) -> Tensor:
        """Return x with the axis ``dim`` last."""
        return x if self.dim == -1 else x.movedim(self.dim, -1)

    def _move_dim_back(self, x: Tensor) -> Tensor:
        """Return x with its last axis moved to ``dim``."""
        return x if self.dim == -1 else x.movedim(-1, self.dim)

    def _checked_gy(self, gy: Tensor, x: Tensor) -> Tensor:
        """Return gy with the axis ``dim`` moved last, like x."""
        return self._move_dim_last(check_gy(self, gy, x.shape if self.dim == -1 else self._move_dim_back(x).shape, x))

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
    """Normalize the last axes of x to mean 0 and variance 1; all axes before them are batch axes.

        μ  = Σ x / m     r = 1 / √(Σ (x - μ)² / m + ε)     over the m elements of a row
        y  = γ x̂ + β     x̂ = (x - μ) r
        gβ = Σ gy        gγ = Σ gy x̂                       over all rows
        gx = r (g - Σ g / m - x̂ Σ g x̂ / m)                 with g = γ gy, over the row

    Args:
        normalized_shape: Sizes of the axes to normalize, a number or a tuple; ``None`` to infer one axis with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        elementwise_affine: Whether to learn the scale γ and the shift β.
        bias: Whether to learn β; without effect if ``elementwise_affine=False``.
        dim: The axis to normalize, if it is not the last: ``LayerNorm(64, dim=1)`` normalizes the channels at each position of
            images (N, 64, height, width) without a permutation.

    Shape:
        x (..., *normalized_shape) → y (..., *normalized_shape)

    Params:
        weight: γ (*normalized_shape), ones; absent with ``elementwise_affine=False``.
        bias: β (*normalized_shape), zeros; absent with ``elementwise_affine=False`` or ``bias=False``.

    Cache:
        ``x`` with the axis ``dim`` moved last, not copied; μ and r of each row.

    Raises:
        ValueError: If ``normalized_shape`` has several axes and ``dim`` is not -1.

    References:
        Ba, Kiros & Hinton 2016, eq. 3; names and defaults as in ``torch.nn.LayerNorm``.

    >>> LayerNorm(4).init(0)["weight"]
    tensor([1., 1., 1., 1.])
    """

    eps: float = field(default=1e-5, validator=norm_params.positive)
    elementwise_affine: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, validator=flag)
    dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        x = self._move_dim_last(x)
        affine = self.elementwise_affine
        self._require_rows(params, x, affine * (1 + self.bias))
        w, b = params["weight"] if affine else None, params["bias"] if affine and self.bias else None
        y, mean, r = kernels.layer_norm(x, self.normalized_shape, w, b, self.eps)
        return self._move_dim_back(y), (x, mean, r)

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
        b = w if self.bias else None  # the kernel requires a bias, and does not read its values
        mask = [needs_x, needs_params and w is not None, needs_params and b is not None]
        gx, gw, gb = kernels.layer_norm_backward(*rows, (mean, r), w, b, mask)
        return norm_params.gparams(params, gw, gb), gx if gx is None else self._move_dim_back(gx)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        if not self.elementwise_affine:
            return {}
        shape = self.normalized_shape
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}


@frozen
class RMSNorm(_RowNorm):
    """Divide each row by its root mean square; unlike ``LayerNorm`` it does not shift.

        y  = γ x̂          x̂ = x r          r = 1 / √(Σ x² / m + ε)     over the m elements of a row
        gγ = Σ gy x̂                                                    over all rows
        gx = r (g - x̂ Σ g x̂ / m)                                       with g = γ gy, over the row

    Args:
        normalized_shape: Sizes of the axes to normalize, a number or a tuple; ``None`` to infer one axis with ``infer_sizes``.
        eps: Added to the mean square, to avoid division by 0; ``None`` for the machine epsilon of the dtype of x, or of float32
            for half precision.
        elementwise_affine: Whether to learn the scale γ.
        dim: The axis to normalize, if it is not the last: ``RMSNorm(64, dim=1)`` for the channels of images.

    Shape:
        x (..., *normalized_shape) → y (..., *normalized_shape)

    Params:
        weight: γ (*normalized_shape), ones; absent with ``elementwise_affine=False``.

    Cache:
        ``x`` with the axis ``dim`` moved last, not copied; r of each row.

    Raises:
        ValueError: If ``normalized_shape`` has several axes and ``dim`` is not -1.

    References:
        Zhang & Sennrich 2019, eq. 4; names and defaults as in ``torch.nn.RMSNorm``.

    >>> RMSNorm(2)(RMSNorm(2).init(0), torch.tensor([3.0, 4.0]))
    tensor([0.8485, 1.1314])
    """

    eps: float | None = field(default=None, validator=validators.optional(norm_params.positive))
    elementwise_affine: bool = field(default=True, validator=flag)
    dim: int = field(default=-1, validator=whole_number)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = self._move_dim_last(x)
        self._require_rows(params, x, self.elementwise_affine)
        axes = tuple(range(-len(self.normalized_shape), 0))
        eps = self.eps or torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        y, r = kernels.rms_norm(x, axes, params["weight"] if self.elementwise_affine else None, eps)
        return self._move_dim_back(y), (x, r)

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
        gx = gx if gx is None else self._move_dim_back(gx)
        return {"weight": gw} if self.elementwise_affine else params, gx

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}
