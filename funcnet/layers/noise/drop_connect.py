"""DropConnect: dropout of weights instead of activations.

x (..., in_features), w and the mask m (out_features, in_features), b (out_features,). ⊙ is the elementwise product.
"""

from typing import Any

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import initializers, random
from funcnet.checks import check_gy, check_param, require_key, require_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.errors import adds_location, flag, number, size, value_error
from funcnet.initializers.elementary import Initializer
from funcnet.kernels import operands as arithmetic
from funcnet.layers.linear.linear import Linear
from funcnet.random.keys import Key, key_beside
from funcnet.value import frozen


@frozen
class DropConnect(Layer):
    """A ``Linear`` whose weights are dropped with probability ``p``, one mask for the whole batch.

        y  = x vᵀ + b                     v = w ⊙ m / (1 - p), m = 1 with probability 1 - p, else 0
        gw = (gyᵀ x) ⊙ m / (1 - p)        gb = Σ gy        gx = gy v

    The mask is a pure function of the key. ``inference()`` returns the ``Linear`` with the same params.

    Args:
        in_features: Size of the last axis of x.
        out_features: Size of the last axis of y.
        p: Probability of dropping a weight.
        bias: Whether to add a learned offset, which is never dropped.
        initializer: Initializer of ``weight``, by name or value, as in ``Linear``.

    Shape:
        x (..., in_features) → y (..., out_features)

    Params:
        weight: (out_features, in_features), Xavier normal.
        bias: (out_features,), zeros; absent with ``bias=False``.

    Cache:
        ``x``, not copied, and the mask m (bool).

    References:
        Wan et al. 2013, "Regularization of neural networks using DropConnect", but with the scaling of dropout instead of
        sampling at inference.

    >>> DropConnect(4, 3).inference()
    Linear(in_features=4, out_features=3)
    """

    in_features: int = field(validator=size)
    out_features: int = field(validator=size)
    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))
    bias: bool = field(default=True, validator=flag)
    initializer: str | Initializer = field(default="xavier_normal", validator=initializers.known)

    _linear: Linear = field(init=False, eq=False, default=Factory(lambda self: self._plain(), takes_self=True))

    stochastic = True

    def init(self, rng: Key | int) -> Params:
        return self._linear.init(rng)

    def apply(self, params: Any, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        require_params(self, params)  # a weight of another shape would broadcast
        if x.is_nested:
            raise value_error(self, "x must be a dense tensor", x)
        if not params["weight"].is_floating_point():  # the mask would turn integers into floats
            raise value_error(self, f"weight must have the dtype of x, {x.dtype}", params["weight"])
        key = key_beside(require_key(self, rng), params["weight"])
        keep = random.bernoulli(key, (self.out_features, self.in_features), 1 - self.p)
        dropped = {**params, "weight": self._dropped(params["weight"], keep)}
        return self._linear.apply(dropped, x)[0], (x, keep)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Any, cache: tuple[Tensor, Tensor], gy: Tensor) -> Grads:
        x, keep = cache
        gparams: Any = self._linear.grads(params, x, self._checked(gy, x))
        return {**gparams, "weight": self._dropped(gparams["weight"], keep)}

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        x, keep = cache
        w = check_param(self, params, "weight", (self.out_features, self.in_features), x)
        return torch.matmul(self._checked(gy, x), self._dropped(w, keep))

    def _checked(self, gy: Tensor, x: Tensor) -> Tensor:
        return check_gy(self, gy, (*x.shape[:-1], self.out_features), x)

    def inference(self) -> Linear:
        return self._linear

    @adds_location("DropConnect")
    def _plain(self) -> Linear:
        return Linear(self.in_features, self.out_features, self.bias, self.initializer)

    def _dropped(self, w: Tensor, keep: Tensor) -> Tensor:
        return arithmetic.masked_scale(w, keep, 1 / (1 - self.p) if self.p < 1 else 0.0)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return self._linear.param_shapes()

    def complaint(self, x: Tensor) -> str | None:
        return self._linear.complaint(x)
