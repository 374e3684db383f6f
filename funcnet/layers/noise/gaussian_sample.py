"""GaussianSample: sample from normal distributions whose mean and variance a net computes, as in a variational autoencoder.

x = (m, v), the mean and the logarithm of the variance; m, v and y have the same shape, (...).
"""

from typing import Any

import torch
from torch import Tensor

from funcnet import random
from funcnet.checks import Misfit, check_gy, pair_complaint, require_dense, require_key, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.layers.shape.selecting import Select
from funcnet.random.keys import key_beside
from funcnet.value import frozen


@frozen
class GaussianSample(Layer):
    """Sample from N(mean, exp(log variance)), given the pair (mean, log_variance).

        y  = m + s           s = exp(½ v) n, n standard normal, x = (m, v)
        gm = gy
        gv = ½ gy s
        gx = (gm, gv)

    Gradients reach mean and variance through the sample (the reparametrization trick). The loss ``GaussianKL`` keeps the
    distribution near a prior: ``serial(branch(Linear(8, 2), Linear(8, 2)), GaussianSample())`` is the latent layer of an
    autoencoder. The sample is a pure function of the key; ``inference()`` returns the layer that selects the mean.

    Shape:
        x ((...), (...)) → y (...), all of one shape.

    Cache:
        s, the difference between y and the mean.

    Raises:
        ValueError: If x is not a pair of floating tensors of one shape, dtype and device.

    References:
        Kingma & Welling 2014, "Auto-encoding variational Bayes", section 2.4.

    >>> GaussianSample()({}, (torch.zeros(3), torch.zeros(3)), 0).shape
    torch.Size([3])
    """

    stochastic = True

    def apply(self, params: Params, x: tuple[Tensor, Tensor], rng: Rng = None) -> tuple[Tensor, Tensor]:
        require_no_params(self, params)
        rng = require_key(self, rng)
        if self.complaint(x):
            raise Misfit
        mean, log_variance = x
        s = torch.exp(log_variance * 0.5) * random.normal(key_beside(rng, mean), tuple(mean.shape), dtype=mean.dtype)
        return mean + s, s

    def vjp(self, params: Params, cache: Tensor, gy: Tensor) -> tuple[Grads, tuple[Tensor, Tensor]]:
        gy = check_gy(self, gy, cache.shape, cache)
        return params, (gy, gy * cache * 0.5)

    def inference(self) -> Layer:
        return Select(0)

    def complaint(self, x: Any) -> str | None:
        if pair_complaint(x):
            return pair_complaint(x)
        mean, log_variance = (require_dense(self, one) for one in x)
        alike = mean.shape == log_variance.shape and mean.dtype is log_variance.dtype
        return None if alike and mean.device == log_variance.device else "x must be a pair of one shape, dtype and device"
