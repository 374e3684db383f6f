"""Noise: other than dropping elements of x; all of it is drawn from the key, and gone in ``inference()``.

AlphaDropout, FeatureAlphaDropout   y = a (x - (1 - m) (x + α)) + a α p      gx = a m ⊙ gy
                                    a = 1 / √((1 - p) (1 + p α²)), α = 1.758..., so -α is where SELU tends to
GaussianNoise                       y = x + σ n                              gx = gy
DropConnect                         y = x (w ⊙ m / (1 - p))ᵀ + b             gx = gy (w ⊙ m / (1 - p))
                                    gw = (gyᵀ x) ⊙ m / (1 - p)               gb = Σ gy

m = 1 with probability 1 - p, else 0; n is normal. x and y have one shape, (...) or (N, channels, ...); DropConnect has those of
Linear, and m (out, in).
"""

import math
from abc import abstractmethod

import torch
from attrs import Factory, field
from torch import Tensor

from funcnet import initializers, random
from funcnet.errors import flag, number, size, wrong
from funcnet.initializers import Initializer
from funcnet.kernels import arithmetic
from funcnet.layer import Layer, Params, fitting, floating, frozen, keyed
from funcnet.layers.linear import Linear
from funcnet.layers.shape import Identity
from funcnet.random import Key

_ALPHA = 1.6732632423543772 * 1.0507009873554805


@frozen
class _Alpha(Layer):
    """Alpha dropout of parts of x that a subclass says by the shape of the mask; all else is here."""

    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    stochastic = True

    @abstractmethod
    def _parts(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask, which is that of x with 1 for the axes along which all is dropped together."""

    def apply(self, params: Params, x: Tensor, rng: Key | int | None = None) -> tuple[Tensor, Tensor]:
        rng = keyed(self, rng)
        keep = random.bernoulli(rng, self._parts(floating(self, params, x)), 1 - self.p)
        a = self._scale()
        return torch.where(keep, x * a, -_ALPHA * a) + _ALPHA * a * self.p, keep

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        gx = arithmetic.masked_scale(gy, cache, self._scale())
        fitting(self, gy, gx)  # the mask would repeat it
        return params, gx

    def inference(self) -> Layer:
        return Identity()

    def _scale(self) -> float:
        return 1 / math.sqrt((1 - self.p) * (1 + self.p * _ALPHA**2)) if self.p < 1 else 0.0


@frozen
class AlphaDropout(_Alpha):
    """Dropout for nets of SELU: each element is set to -α with probability ``p``, and all scaled to keep mean 0 and variance 1.

    Params   none.
    Cache    the mask (bool), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and when ``x`` is not a floating tensor.
    Source   Klambauer et al. 2017, section 3; with p = 1 all are 0, as in torch.nn.
    """

    def _parts(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)


@frozen
class FeatureAlphaDropout(_Alpha):
    """Alpha dropout of whole channels of (N, channels, ...); all else is as in ``AlphaDropout``.

    Params   none.
    Cache    the mask (bool), (N, channels, 1, ...), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and an ``x`` that is not floating or has no channels.
    Source   ``torch.nn.FeatureAlphaDropout``'s formula; Klambauer et al. 2017, section 3, for that of ``AlphaDropout``.
    """

    def _parts(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() < 2:
            raise wrong(self, "x must have the axes (N, channels, ...)", f"x of shape {tuple(x.shape)}")
        return (*x.shape[:2], *[1] * (x.dim() - 2))


@frozen
class GaussianNoise(Layer):
    """Sum with normal numbers of mean 0 and standard deviation ``std``; the identity in ``inference()``.

    Params   none.
    Cache    ``()``.
    Raises   ``ValueError`` for a negative std, without a key, and when ``x`` is not a floating tensor.
    Source   Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".
    """

    std: float = field(default=0.1, validator=number(0.0))

    stochastic = True

    def apply(self, params: Params, x: Tensor, rng: Key | int | None = None) -> tuple[Tensor, tuple[()]]:
        rng = keyed(self, rng)
        return x + random.normal(rng, tuple(floating(self, params, x).shape), 0.0, self.std, x.dtype), ()

    def vjp(self, params: Params, cache: tuple[()], gy: Tensor) -> tuple[Params, Tensor]:
        return params, gy

    def inference(self) -> Layer:
        return Identity()


@frozen
class DropConnect(Layer):
    """A ``Linear`` each of whose weights is dropped with probability ``p``, for the whole batch; the rest is divided by 1 - p.

    In ``inference()`` it is the ``Linear`` with the same params.

    Params   ``Linear``'s.
    Cache    ``x`` and the mask (bool), (out, in), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and what ``Linear`` raises.
    Source   Wan et al. 2013, with dropout's scaling in place of their sampling in inference.
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

    def apply(self, params: Params, x: Tensor, rng: Key | int | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        keep = random.bernoulli(keyed(self, rng), (self.out_features, self.in_features), 1 - self.p)
        dropped = {**params, "weight": self._dropped(params["weight"], keep)} if self._fitting(params) else params
        return self._linear.apply(dropped, x)[0], (x, keep)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Params, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Params:
        x, keep = cache
        gparams = self._linear.grads(params, x, gy)
        return {**gparams, "weight": self._dropped(gparams["weight"], keep)}

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        return torch.matmul(gy, self._dropped(params["weight"], cache[1]))

    def inference(self) -> Linear:
        return self._linear

    def _plain(self) -> Linear:
        return Linear(self.in_features, self.out_features, self.bias, self.initializer)

    def _dropped(self, w: Tensor, keep: Tensor) -> Tensor:
        return arithmetic.masked_scale(w, keep, 1 / (1 - self.p) if self.p < 1 else 0.0)

    def _fitting(self, params: Params) -> bool:
        """Tell whether there is a weight to drop from; if not, ``Linear`` says what is wrong."""
        shape = (self.out_features, self.in_features)
        return isinstance(params, dict) and isinstance(params.get("weight"), Tensor) and params["weight"].shape == shape

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return self._linear._shapes()
