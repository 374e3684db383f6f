"""Group normalization: shift and scale each group of channels of each row to mean 0 and variance 1, then map it affinely.

A group holds m elements: neighbouring channels of one row of x (N, channels, ...), with all axes after them.
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
    """Normalize ``num_groups`` groups of neighbouring channels of each row.

        μ  = Σ x / m      r = 1 / √(Σ (x - μ)² / m + ε)      over the m elements of a group
        y  = γ x̂ + β      x̂ = (x - μ) r
        gβ = Σ gy         gγ = Σ gy x̂                        over rows and positions
        gx = r (g - Σ g / m - x̂ Σ g x̂ / m)                   with g = γ gy, over the group

    Args:
        num_groups: Number of groups; it must divide ``num_channels``.
        num_channels: Number of channels, the size of axis 1 of x; ``None`` to infer it with ``infer_sizes``.
        eps: Added to the variance before the square root, to avoid division by 0.
        affine: Whether to learn the scale γ and the shift β of each channel.
        bias: Whether to learn β; without effect if ``affine=False``.

    Shape:
        x (N, num_channels, ...) → y (N, num_channels, ...)

    Params:
        weight: γ (num_channels,), ones; absent with ``affine=False``.
        bias: β (num_channels,), zeros; absent with ``affine=False`` or ``bias=False``.

    Cache:
        ``x``, copied if it is not contiguous; μ and r of each group of each row.

    Raises:
        ValueError: If ``num_groups`` does not divide ``num_channels``.

    References:
        Wu & He 2018; names and defaults as in ``torch.nn.GroupNorm``.

    >>> GroupNorm(2, 4).init(0)["weight"]
    tensor([1., 1., 1., 1.])
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
            raise Misfit  # the kernel compares only shapes, and broadcasts under vmap
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
