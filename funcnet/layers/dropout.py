"""Dropout: each element is dropped with probability p, and what stays is scaled to keep the mean.

y  = x ⊙ m / (1 - p)      m = 1 with probability 1 - p, else 0; drawn from the key
gx = gy ⊙ m / (1 - p)
"""

from attrs import field
from torch import Tensor

from funcnet import random
from funcnet.errors import number, wrong
from funcnet.kernels import arithmetic as kernels
from funcnet.layer import Layer, Params, fitting, floating, frozen
from funcnet.layers.shape import Identity
from funcnet.random import Key


@frozen
class Dropout(Layer):
    """Zero each element with probability ``p``, and divide the rest by 1 - p; the identity in ``inference()``.

    The mask is a pure function of the key: ``apply(params, x, rng)`` with the same key drops the same elements.

    Params   none.
    Cache    the mask (bool), True for what stays.
    Raises   ``ValueError`` for a p outside [0, 1], without a key, and when ``x`` is not a floating tensor.
    Source   Srivastava et al. 2014, section 10 for the scaling.
    """

    p: float = field(default=0.5, validator=number(0.0, at_most=1.0))

    stochastic = True

    def apply(self, params: Params, x: Tensor, rng: Key | int | None = None) -> tuple[Tensor, Tensor]:
        if rng is None:
            raise wrong(self, "apply must be given a key, apply(params, x, rng); for evaluation use inference()", "no key")
        keep = random.bernoulli(rng, tuple(floating(self, params, x).shape), 1 - self.p)
        return kernels.masked_scale(x, keep, self._scale()), keep

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
        return params, kernels.masked_scale(fitting(self, gy, cache), cache, self._scale())

    def inference(self) -> Layer:
        return Identity()

    def _scale(self) -> float:
        return 1 / (1 - self.p) if self.p < 1 else 0.0
