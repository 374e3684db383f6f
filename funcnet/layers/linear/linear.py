"""Linear: each output is a weighted sum of every input, plus an offset.

y  = x wᵀ + b           x (..., in)     y (..., out)
gw = gyᵀ x, over rows   w (out, in)
gb = Σ gy, over rows    b (out,)
gx = gy w
"""

from typing import Any

import torch
from attrs import field
from torch import Tensor, strided

from funcnet import initializers
from funcnet.checks import Misfit, check_gy
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import flag, size, size_or_none
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import linear as kernels
from funcnet.plans import Unchecked
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class Linear(Layer):
    """Affine map of the last axis; every axis before it is batch. ``in_features=None`` is for ``infer_sizes`` to find.

    >>> Linear(4, 3).init(0)["weight"].shape
    torch.Size([3, 4])

    Params   ``weight`` (out, in), Xavier normal unless ``initializer`` names another; ``bias`` (out,), zeros, absent with
             ``bias=False``. With ``initializer="torch"`` both are drawn as ``torch.nn.Linear`` draws them.
    Cache    ``x`` itself, not a copy.
    Raises   ``ValueError`` for a size below 1, for params of another layer, when the last axis of ``x`` is not
             ``in_features``, and when its dtype is not that of the params.
    Source   Glorot & Bengio 2010, eq. 12, for the spread of ``weight``.
    """

    weight_output_axis = 0

    in_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer)

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        w, n = params["weight"], self.out_features
        b: Any = params["bias"] if self.bias else None
        if w.shape != (n, self.in_features) or (self.bias and b.shape != (n,)) or len(params) != 1 + self.bias:
            raise Misfit  # the kernel broadcasts a bias of any shape
        return kernels.linear(x, w, b), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        w = params["weight"]
        if gy.dim() != 2 or gy.layout is not strided:
            self._checked(gy, cache)
        gw, gb, gx = kernels.linear_vjp(gy, cache, w, self.bias)
        if gw.shape != w.shape:  # all other misfits of matrices raise in the products
            raise Misfit
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}, gx

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        gw = kernels.matmul_weight_grad(self._checked(gy, cache), cache)
        return {"weight": gw, "bias": kernels.sum_of_rows(gy)} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        return kernels.matmul_input_grad(self._checked(gy, cache), self._weight(params))

    def _checked(self, gy: Tensor, x: Tensor) -> Tensor:
        n = self.out_features
        return check_gy(self, gy, (x.shape[0], n) if x.dim() == 2 else (*x.shape[:-1], n), x)  # slices of shapes take 0.3 µs more

    def _weight(self, params: Params) -> Tensor:
        """Return the weight; kernels take one with more columns, and notice other dtypes."""
        w: Tensor = params["weight"]
        if w.shape != (self.out_features, self.in_features):
            raise Misfit
        return w

    def unchecked(self, params: Params, cache: Tensor) -> Unchecked | None:
        if not kernels.is_small(cache, self.out_features):
            return None
        return _WITH_BIAS if self.bias else _WITHOUT_BIAS

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes


# A matrix of few rows goes to the same kernels with and without checks.


def _small_apply(params: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return kernels.small_linear(x, params["weight"], params.get("bias")), x


def _small_vjp(params: Params, x: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
    return {"weight": torch.mm(gy.t(), x), "bias": gy.sum(0)}, torch.mm(gy, params["weight"])


def _small_grads(params: Params, x: Tensor, gy: Tensor) -> Params:
    return {"weight": torch.mm(gy.t(), x), "bias": gy.sum(0)}


def _small_vjp_of_weight(params: Params, x: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
    return {"weight": torch.mm(gy.t(), x)}, torch.mm(gy, params["weight"])


def _small_grads_of_weight(params: Params, x: Tensor, gy: Tensor) -> Params:
    return {"weight": torch.mm(gy.t(), x)}


_WITH_BIAS = Unchecked(_small_apply, _small_vjp, _small_grads)
_WITHOUT_BIAS = Unchecked(_small_apply, _small_vjp_of_weight, _small_grads_of_weight)
