"""Leaky rectifiers: x where it is positive, else a slope times x, where the slope is learned or drawn.

LeakyReLU   y = x where x > 0, else s x      gx = gy where x > 0, else s gy         s = negative_slope
PReLU   y = x where x > 0, else w x      gx = gy where x > 0, else w gy      gw = Σ gy ⊙ x where x ≤ 0
RReLU   y = r ⊙ x, with r = 1 where x > 0, else drawn from lower ≤ r < upper      gx = gy ⊙ r

x and y have one shape: (...), or (N, channels, ...) with several slopes. w (num_parameters,) has one slope for all channels, or
one for each. ⊙ is the elementwise product. The sum for gw runs over all elements that share a slope.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, check_gy, check_param, floating_complaint, require_dense_floating, require_key
from funcnet.contract import Grads, Layer, Params, Rng, Size
from funcnet.errors import describe, fields_error, number, size_or_none, value_error
from funcnet.kernels import activation as kernels
from funcnet.layers.activation.base import Activation
from funcnet.random.keys import Key, as_key, key_beside
from funcnet.value import frozen


@frozen
class LeakyReLU(Activation):
    """x for positive x, else ``negative_slope`` x; the gradient at 0 is ``negative_slope``.

    Params   none.
    Cache    ``y``, which has the sign of ``x``; ``x`` itself when the slope is negative or 0.
    Raises   ``ValueError`` for a slope that is not finite, and when ``x`` is not a floating tensor.
    Source   Maas, Hannun & Ng 2013.
    """

    negative_slope: float = field(default=0.01, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.leaky_relu(x, self.negative_slope)
        return y, y if self.negative_slope > 0 else x

    def backward(self, gy: Tensor, cache: Tensor) -> Tensor:
        return kernels.leaky_relu_backward(gy, cache, self.negative_slope, False)


@frozen
class PReLU(Layer):
    """LeakyReLU with a learned slope, one for all or one for each channel (the second axis); at 0 its gradient is the slope.

    ``num_parameters=None`` is the number of channels, for ``infer_sizes`` to find.

    Params   ``weight`` (num_parameters,), each of them ``init``.
    Cache    ``x``.
    Raises   ``ValueError`` for a ``num_parameters`` below 1, an ``init`` that is not finite, params of another layer,
             and an ``x`` whose second axis is not ``num_parameters``, unless that is 1, or with another dtype.
    Source   He, Zhang, Ren & Sun 2015.
    """

    undecayed = ("weight",)

    num_parameters: Size = field(default=1, validator=size_or_none)  # type: ignore[assignment]
    _init: float = field(default=0.25, validator=number())

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"num_parameters": 1}

    def init(self, rng: Key | int) -> Params:
        return {"weight": torch.full((self.num_parameters,), float(self._init), device=as_key(rng).device)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        w = params["weight"]
        if w.shape != (self.num_parameters,) or len(params) != 1 or w.dtype is not x.dtype or w.is_cpu is not x.is_cpu:
            raise Misfit  # the kernel takes as many slopes as x has channels
        if x.layout is not torch.strided or w.layout is not torch.strided or x.is_nested:
            raise value_error(self, "weight and x must be dense tensors", f"{describe(w)} and {describe(x)}")
        return kernels.prelu(x, w), x

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        gx, gw = self._backward(params, cache, gy)
        return {"weight": gw.sum([i for i in range(gw.dim()) if i != 1 or self.num_parameters == 1]).reshape(-1)}, gx

    def input_grad(self, params: Params, cache: Tensor, gy: Tensor) -> Tensor:
        return self._backward(params, cache, gy)[0]

    def _backward(self, params: Params, x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
        """Return gx, and the terms of gw."""
        w = check_param(self, params, "weight", (self.num_parameters,), x)
        return kernels.prelu_backward(check_gy(self, gy, x.shape, x), x, kernels.of_channels(w, x))

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.num_parameters,)}

    def complaint(self, x: Tensor) -> str | None:
        return floating_complaint(x) if self.num_parameters == 1 else super().complaint(x)


@frozen
class RReLU(Layer):
    """LeakyReLU whose slopes are drawn evenly for each element; in ``inference()`` LeakyReLU with their mean.

    The slopes are a pure function of the key: ``apply(params, x, rng)`` with the same key draws the same.

    Params   none.
    Cache    the slopes, 1 for a positive x.
    Raises   ``ValueError`` for bounds that are not finite or out of order, without a key, and when ``x`` is not a floating
             tensor.
    Source   Xu, Wang, Chen & Li 2015.
    """

    lower: float = field(default=1 / 8, validator=number())
    upper: float = field(default=1 / 3, validator=number())

    stochastic = True

    def __attrs_post_init__(self) -> None:
        if self.lower > self.upper:
            raise fields_error(self, "lower must be at most upper", "lower", "upper")

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, Tensor]:
        key, shape = require_key(self, rng), tuple(require_dense_floating(self, params, x).shape)
        slopes = torch.where(x > 0, 1.0, random.uniform(key_beside(key, x), shape, self.lower, self.upper, dtype=x.dtype))
        return x * slopes, slopes

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, Tensor]:
        return params, check_gy(self, gy, cache.shape, cache) * cache

    def inference(self) -> Layer:
        return LeakyReLU((self.lower + self.upper) / 2)
