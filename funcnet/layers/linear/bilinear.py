"""Bilinear: a linear map of the products of two inputs.

a (..., in1_features), b (..., in2_features), w (out_features, in1_features, in2_features), c (out_features,) the bias.
"""

import math
from typing import Any

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import Misfit, check_gy, check_param, missing_sizes, pair_complaint, require_arguments, require_pair, size_in
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import flag, size, size_or_none
from funcnet.initializers.elementary import Initializer, Uniform
from funcnet.kernels import linear as kernels
from funcnet.random.keys import Key
from funcnet.value import frozen

Pair = tuple[Tensor, Tensor]


@frozen
class Bilinear(Layer):
    """Bilinear map of the last axes of two inputs.

        y[o]        = Σ w[o, i, j] a[i] b[j] + c[o]         x = (a, b)
        gw[o, i, j] = Σ gy[o] a[i] b[j]                     gc[o] = Σ gy[o]            sums over all rows
        ga[i]       = Σ gy[o] w[o, i, j] b[j]               gb[j] = Σ gy[o] w[o, i, j] a[i]

    Every axis before the last is a batch axis, with the same size in both inputs.

    Args:
        in1_features: Size of the last axis of a; ``None`` to infer it with ``infer_sizes``.
        in2_features: Size of the last axis of b; ``None`` to infer it with ``infer_sizes``.
        out_features: Size of the last axis of y.
        bias: Whether to add the learned offset c.
        initializer: Initializer of ``weight``, by name or value; ``"torch"`` initializes both like ``torch.nn.Bilinear``.

    Shape:
        x, a pair of (..., in1_features) and (..., in2_features) → y (..., out_features)

    Params:
        weight: (out_features, in1_features, in2_features), Xavier normal with a fan-in of in1_features · in2_features.
        bias: (out_features,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If x is not a pair of floating tensors of one dtype, with these last axes and equal axes before them.

    References:
        ``torch.nn.Bilinear``.

    >>> layer = Bilinear(3, 4, 5)
    >>> layer(layer.init(0), (torch.ones(2, 3), torch.ones(2, 4))).shape
    torch.Size([2, 5])
    """

    in1_features: Size = field(validator=size_or_none)
    in2_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in1_features": -1, "in2_features": -1}

    def init(self, rng: Key | int) -> Params:
        if self.initializer != "torch":
            fans = self.in1_features * self.in2_features, self.out_features
            return initializers.weight_and_bias(rng, self.param_shapes(), self.initializer, fans)
        bound = 1 / math.sqrt(self.in1_features)
        draw = Uniform(-bound, bound)
        bias = {"bias": draw(random.fold_in(rng, 1), (self.out_features,))} if self.bias else {}
        return {"weight": draw(random.fold_in(rng, 0), self.param_shapes()["weight"]), **bias}

    def apply(self, params: Any, x: Pair, rng: Rng = None) -> tuple[Tensor, Pair]:
        require_arguments(self, params, x)
        if x[0].dtype is not x[1].dtype:
            raise Misfit
        return kernels.linear(self._outer(x), params["weight"].flatten(1), params.get("bias")), x

    def vjp(self, params: Params, cache: Pair, gy: Tensor) -> tuple[Grads, Pair]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: Pair, gy: Tensor) -> Grads:
        gw, gb = kernels.linear_grads(self._outer(cache), self._checked(gy, cache[0]))
        gw = gw.reshape(self._weight_shape)
        return {"weight": gw, "bias": gb} if self.bias else {"weight": gw}

    def input_grad(self, params: Params, cache: Pair, gy: Tensor) -> Pair:
        a, b = cache
        sizes = self.in1_features, self.in2_features
        w = check_param(self, params, "weight", self._weight_shape, a)
        g = torch.matmul(self._checked(gy, a), w.flatten(1)).reshape(*gy.shape[:-1], *sizes)
        return torch.matmul(g, b.unsqueeze(-1)).squeeze(-1), torch.matmul(a.unsqueeze(-2), g).squeeze(-2)

    def _checked(self, gy: Tensor, a: Tensor) -> Tensor:
        return check_gy(self, gy, (*a.shape[:-1], self.out_features), a)

    @property
    def _weight_shape(self) -> Shape:
        return self.out_features, self.in1_features, self.in2_features

    def _outer(self, x: Pair) -> Tensor:
        """Return the products a[i] b[j], flattened to one axis."""
        return (x[0].unsqueeze(-1) * x[1].unsqueeze(-2)).flatten(-2)

    def param_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": self._weight_shape}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def complaint(self, x: Any) -> str | None:
        if pair_complaint(x):
            return pair_complaint(x)
        n, m, a, b = self.in1_features, self.in2_features, *[tuple(one.shape) for one in x]
        rule = f"x must have the last axes in1_features={n} and in2_features={m}, and the same axes before, not {a} and {b}"
        return None if a[-1:] == (n,) and b == (*a[:-1], m) else rule

    def _inferred(self, x: Any) -> dict[str, Any]:
        parts = dict(zip(self.inferred_sizes, require_pair(self, x), strict=True))
        return {name: size_in(self, parts[name], name) for name in missing_sizes(self)}
