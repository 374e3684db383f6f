"""Normalization of groups of channels: each group of a row is shifted and scaled by its own statistics, then affinely mapped.

Over the m elements of a group (some channels of one row of x (N, channels, ...), and all that comes after them), γ and β
(channels,):

    μ  = Σ x / m      r = 1 / √(Σ (x - μ)² / m + ε)      x̂ = (x - μ) r      y = γ x̂ + β
    gβ = Σ gy         gγ = Σ gy x̂        over rows, and all that comes after the channels
    gx = r (g - Σ g / m - x̂ Σ g x̂ / m)   with g = γ gy, over the group
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet.checks import Misfit, axes_complaint, check_gy
from funcnet.contract import Grads, Layer, Params, Rng, Size
from funcnet.errors import fields_error, flag, size, size_or_none
from funcnet.kernels import norm as kernels
from funcnet.layers.norm import params as norm_params
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class GroupNorm(Layer):
    """Normalization of ``num_groups`` groups of neighbouring channels, over (N, channels, ...), each row by itself.

    ``num_channels=None`` is for ``infer_sizes`` to find.

    Params   ``weight`` γ, ones, and ``bias`` β, zeros, (num_channels,); neither with ``affine=False``, and no ``bias``
             with ``bias=False``.
    Cache    ``x``, copied where its axes do not lie in order; each row's and group's mean and 1 / √(σ² + ε).
    Raises   ``ValueError`` for channels that the groups do not divide, for an ε that is not positive, for params that are not
             this layer's, and an ``x`` with other channels or another dtype.
    Source   Wu & He 2018; the names and ε are ``torch.nn.GroupNorm``'s.
    """

    undecayed = ("weight",)

    num_groups: int = field(validator=size)
    num_channels: Size = field(validator=size_or_none)
    eps: float = field(default=1e-5, validator=norm_params.positive)
    affine: bool = field(default=True, validator=flag)
    bias: bool = field(default=True, kw_only=True, validator=flag)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_channels": 1}

    def __attrs_post_init__(self) -> None:
        if (self.num_channels or 0) % self.num_groups:
            raise fields_error(self, "num_groups must divide num_channels", "num_groups", "num_channels")

    def init(self, rng: Key | int) -> Params:
        return norm_params.initialize(rng, self)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        w, b = params["weight"] if self.affine else None, params["bias"] if self.affine and self.bias else None
        wrong = x.size(1) != self.num_channels or not x.is_floating_point() or len(params) != self.affine * (1 + self.bias)
        if wrong or any([p.dtype is not x.dtype or p.numel() != self.num_channels for p in params.values()]):  # noqa: C419
            raise Misfit  # the kernel compares shapes only, and broadcasts under vmap
        y, kept, mean, r = kernels.group_norm(x, self.num_groups, w, b, self.eps)
        return y, (kept, mean, r)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return self._back(params, cache, gy, [True, self.affine, self.affine and self.bias])

    def grads(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Grads:
        return self._back(params, cache, gy, [False, self.affine, self.affine and self.bias])[0]

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._back(params, cache, gy, [True, False, False])[1]

    def _back(self, params: Params, cache: tuple[Tensor, Tensor, Tensor], gy: Tensor, mask: list[bool]) -> tuple[Params, Tensor]:
        x, mean, r = cache
        groups = check_gy(self, gy, x.shape, x), x, self.num_groups
        (w,) = norm_params.backward_params(self, params, self.num_channels)
        gx, gw, gb = kernels.group_norm_backward(*groups, (mean, r), w, mask)
        return norm_params.gparams(params, gw, gb), gx

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return norm_params.shapes_of_channels(self.num_channels, self.affine, self.bias, tracked=False)

    def complaint(self, x: Tensor) -> str | None:
        return axes_complaint(self, x, "N, num_channels, ...")
