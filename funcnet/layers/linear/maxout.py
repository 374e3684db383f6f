"""Maxout: the largest of several linear maps.

x (..., in_features), wₚ (out_features, in_features), bₚ (out_features,), y (..., out_features), for each piece p.
"""

from typing import Any

from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import check_gy, check_param, require_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import flag, size, size_or_none
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import linear as kernels
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class Maxout(Layer):
    """Maximum of several affine maps of the last axis, for each output.

        y   = max over p of x wₚᵀ + bₚ
        gwₚ = gₚᵀ x    gbₚ = Σ gₚ    gx = Σ_p gₚ wₚ          gₚ = gy where piece p is the largest, else 0

    In a tie, one of the largest pieces gets the whole gradient.

    Args:
        in_features: Size of the last axis of x; ``None`` to infer it with ``infer_sizes``.
        out_features: Size of the last axis of y.
        pieces: Number of affine maps for each output.
        bias: Whether each map has a learned offset.
        initializer: Initializer of ``weight``, by name or value.

    Shape:
        x (..., in_features) → y (..., out_features)

    Params:
        weight: (out_features · pieces, in_features), the pieces of one output in consecutive rows, Xavier normal.
        bias: (out_features · pieces,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied, and the index of the largest piece.

    References:
        Goodfellow et al. 2013, "Maxout networks", section 3.

    >>> Maxout(4, 3).init(0)["weight"].shape
    torch.Size([6, 4])
    """

    in_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    pieces: int = field(default=2, validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        require_params(self, params)
        z = kernels.linear(x, params["weight"], params.get("bias"))
        y, piece = z.reshape(*x.shape[:-1], self.out_features, self.pieces).max(-1)
        return y, (x, piece)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        g = self._spread(cache, gy)
        return self._gparams(cache, g), self._gx(params, cache, g)

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Grads:
        return self._gparams(cache, self._spread(cache, gy))

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        return self._gx(params, cache, self._spread(cache, gy))

    def _gx(self, params: Params, cache: tuple[Tensor, Tensor], g: Tensor) -> Tensor:
        shape = self.out_features * self.pieces, self.in_features
        return kernels.matmul_input_grad(g, check_param(self, params, "weight", shape, cache[0]))

    def _spread(self, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        """Return the gradient of each piece: gy for the largest, 0 for the others."""
        x, piece = cache
        zeros = check_gy(self, gy, piece.shape, x).new_zeros(*piece.shape, self.pieces)
        return zeros.scatter(-1, piece.unsqueeze(-1), gy.unsqueeze(-1)).flatten(-2)

    def _gparams(self, cache: tuple[Tensor, Tensor], g: Tensor) -> Params:
        gw, gb = kernels.linear_grads(cache[0], g)
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def param_shapes(self) -> dict[str, Shape]:
        rows = self.out_features * self.pieces
        shapes: dict[str, Shape] = {"weight": (rows, self.in_features)}
        return {**shapes, "bias": (rows,)} if self.bias else shapes
