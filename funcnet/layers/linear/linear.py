"""Linear: each output is a weighted sum of all inputs, plus an offset.

x (..., in_features), w (out_features, in_features), b (out_features,), y (..., out_features). Every axis before the last is a
batch axis.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

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

_Product = Callable[..., Tensor]
_Products = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@frozen
class Linear(Layer):
    """Affine map of the last axis.

        y  = x wᵀ + b
        gw = gyᵀ x    gb = Σ gy    gx = gy w          sums over all rows

    Args:
        in_features: Size of the last axis of x; ``None`` to infer it with ``infer_sizes``.
        out_features: Size of the last axis of y.
        bias: Whether to add a learned offset.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.Linear``.

    Shape:
        x (..., in_features) → y (..., out_features)

    Params:
        weight: (out_features, in_features), Xavier normal.
        bias: (out_features,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied.

    References:
        Glorot & Bengio 2010, eq. 12, for the standard deviation of ``weight``.

    >>> Linear(4, 3).init(0)["weight"].shape
    torch.Size([3, 4])
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
            raise Misfit  # the kernel would broadcast a bias of another shape
        return kernels.linear(x, w, b), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        w = params["weight"]
        if gy.dim() != 2 or gy.layout is not strided:
            self._checked(gy, cache)
        gw, gb, gx = kernels.linear_vjp(gy, cache, w, self.bias)
        if gw.shape != w.shape:  # every other mismatch raises in the products
            raise Misfit
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}, gx

    def grads(self, params: Params, cache: Tensor, gy: Tensor) -> Grads:
        gw = kernels.matmul_weight_grad(self._checked(gy, cache), cache)
        return {"weight": gw, "bias": kernels.sum_of_rows(gy)} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        return kernels.matmul_input_grad(self._checked(gy, cache), self._weight(params))

    def _checked(self, gy: Tensor, x: Tensor) -> Tensor:
        n = self.out_features
        return check_gy(
            self, gy, (x.shape[0], n) if x.dim() == 2 else (*x.shape[:-1], n), x
        )  # slicing the shape takes 0.3 µs more

    def _weight(self, params: Params) -> Tensor:
        """Return the weight: the kernels notice a wrong dtype, but accept a weight with more columns."""
        w: Tensor = params["weight"]
        if w.shape != (self.out_features, self.in_features):
            raise Misfit
        return w

    def unchecked(self, params: Params, cache: Tensor) -> Unchecked | None:
        if not kernels.is_small(cache, self.out_features):
            return None
        n = cache.numel() * self.out_features
        return (_with_bias if self.bias else _without_bias)(kernels.linear_of(n), kernels.mm_of(n), kernels.both_of(n))

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes


# The verbs without checks, for matrices with few rows. They call the same kernels as the checked verbs.


@cache
def _with_bias(linear: _Product, mm: _Product, both: _Products) -> Unchecked:
    def apply(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        return linear(x, params["weight"], params["bias"]), x

    def vjp(params: Params, x: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        gw, gx = both(gy, x, params["weight"])
        return {"weight": gw, "bias": gy.sum(0)}, gx

    def grads(params: Params, x: Tensor, gy: Tensor) -> Grads:
        return {"weight": mm(gy.t(), x), "bias": gy.sum(0)}

    return Unchecked(apply, vjp, grads)


@cache
def _without_bias(linear: _Product, mm: _Product, both: _Products) -> Unchecked:
    def apply(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        return linear(x, params["weight"]), x

    def vjp(params: Params, x: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        gw, gx = both(gy, x, params["weight"])
        return {"weight": gw}, gx

    def grads(params: Params, x: Tensor, gy: Tensor) -> Grads:
        return {"weight": mm(gy.t(), x)}

    return Unchecked(apply, vjp, grads)
