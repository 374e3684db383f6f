"""Leaky rectifiers: the identity for positive x, and a slope times x elsewhere. The slope is fixed, learned or random.

y and gx have the shape of x. ⊙ is the elementwise product.
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
    """Leaky rectified linear unit, with a fixed slope for negative x.

        y  = x where x > 0, else s x           s = negative_slope
        gx = gy where x > 0, else s gy

    Args:
        negative_slope: Slope s for x ≤ 0, which is also the gradient at 0.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, which has the sign of ``x``; ``x`` if the slope is 0 or negative. Neither is copied.

    References:
        Maas, Hannun & Ng 2013, "Rectifier nonlinearities improve neural network acoustic models".

    >>> LeakyReLU(0.5)({}, torch.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])
    """

    negative_slope: float = field(default=0.01, validator=number())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.leaky_relu(x, self.negative_slope)
        return y, y if self.negative_slope > 0 else x

    def backward(self, gy: Tensor, cache: Tensor) -> Tensor:
        return kernels.leaky_relu_backward(gy, cache, self.negative_slope, False)


@frozen
class PReLU(Layer):
    """Leaky rectified linear unit with learned slopes.

        y  = x where x > 0, else w x           w one slope, or one for each channel
        gx = gy where x > 0, else w gy
        gw = Σ gy ⊙ x where x ≤ 0              sum over all elements with the same slope

    Weight decay skips ``weight`` by default.

    Args:
        num_parameters: 1 for a single slope, or the number of channels for one slope per channel; ``None`` to infer the number of
            channels with ``infer_sizes``.
        init: Initial value of every slope.

    Shape:
        x (...) → y (...); with several slopes x (N, num_parameters, ...).

    Params:
        weight: (num_parameters,), filled with ``init``.

    Cache:
        ``x``, not copied.

    Raises:
        ValueError: If the second axis of x does not have size ``num_parameters``, unless that is 1.

    References:
        He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers", section 2.1.

    >>> layer = PReLU(3)
    >>> layer(layer.init(0), torch.full((2, 3), -1.0))[0]
    tensor([-0.2500, -0.2500, -0.2500])
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
            raise Misfit  # the kernel accepts as many slopes as x has channels
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
    """Leaky rectified linear unit with a random slope for each element.

        y  = r ⊙ x         r = 1 where x > 0, else uniform in [lower, upper)
        gx = gy ⊙ r

    The slopes are a pure function of the key. ``inference()`` returns the ``LeakyReLU`` with the mean slope.

    Args:
        lower: Lower bound of the slopes.
        upper: Upper bound of the slopes.

    Shape:
        x (...) → y (...)

    Cache:
        The slopes r.

    Raises:
        ValueError: If ``lower`` is above ``upper``.

    References:
        Xu, Wang, Chen & Li 2015, "Empirical evaluation of rectified activations in convolution network".

    >>> RReLU().inference()
    LeakyReLU(negative_slope=0.22916666666666666)
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
