"""Radial basis functions: each output measures how close x is to a learned center.

    y[j] = exp(-γ ‖x - c[j]‖²)        c[j] the center j

x (..., in_features), c (out_features, in_features), y (..., out_features).
"""

import torch
from attrs import field
from torch import Tensor

from funcnet import initializers
from funcnet.checks import Misfit, check_gy, check_param, require_params
from funcnet.contract import Grads, Layer, Params, Rng, Shape, Size
from funcnet.errors import number, size, size_or_none, value_error
from funcnet.initializers.elementary import Initializer, Normal
from funcnet.kernels.activation import positive_part
from funcnet.random.keys import Key
from funcnet.value import frozen


@frozen
class RBF(Layer):
    """Gaussian radial basis functions of the last axis, with learned centers.

        y[j]  = exp(-γ ‖x - c[j]‖²)
        gx    = 2γ Σ_j gy[j] y[j] (c[j] - x)
        gc[j] = 2γ Σ gy[j] y[j] (x - c[j])        sum over all rows

    y[j] is 1 at the center c[j], and falls to 0 with the distance. The squared distances come from a matrix product, after the
    mean of the centers has been subtracted from x and c: an offset common to both then costs no precision. Sums of float16 and
    bfloat16 are computed in float32.

    Args:
        in_features: Size of the last axis of x; ``None`` to infer it with ``infer_sizes``.
        out_features: Number of centers, the size of the last axis of y.
        gamma: Factor γ of the squared distance, above 0; the width of the bell is 1/√(2γ).
        initializer: Initializer of ``centers``, by name or value; the default suits an x with mean 0 and variance 1.

    Shape:
        x (..., in_features) → y (..., out_features)

    Params:
        centers: (out_features, in_features), standard normal.

    Cache:
        ``x``, not copied, and y before it is rounded to the dtype of x.

    References:
        Broomhead & Lowe 1988; Moody & Darken 1989, "Fast learning in networks of locally-tuned processing units".

    >>> import torch
    >>> RBF(2, 1)({"centers": torch.zeros(1, 2)}, torch.zeros(3, 2)).flatten()
    tensor([1., 1., 1.])
    """

    in_features: Size = field(validator=size_or_none)
    out_features: int = field(validator=size)
    gamma: float = field(default=1.0, validator=number(above=0.0))
    initializer: str | Initializer = field(default=Normal(), validator=initializers.known)

    @property
    def inferred_sizes(self) -> dict[str, int]:
        return {"in_features": -1}

    def init(self, rng: Key | int) -> Params:
        return {"centers": initializers.initialize(rng, (self.out_features, self.in_features), self.initializer)}

    def apply(self, params: Params, x: Tensor, rng: Rng = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        require_params(self, params)
        c = params["centers"]
        if x.is_nested:
            raise value_error(self, "x must be a dense tensor", x)
        if x.shape[-1:] != (self.in_features,) or x.dtype is not c.dtype or x.is_cpu is not c.is_cpu:
            raise Misfit  # the mean of the centers would broadcast, and the product would accept any dtype
        if x.layout is not torch.strided or c.layout is not torch.strided:
            raise Misfit
        z, c = _centered(x, c)
        squares = (z * z).sum(-1, keepdim=True) + (c * c).sum(-1) - 2 * torch.matmul(z, c.mT)
        y = torch.exp(-self.gamma * positive_part(squares))
        return y.to(x.dtype), (x, y)

    def vjp(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> tuple[Grads, Tensor]:
        return self.grads(params, cache, gy), self.input_grad(params, cache, gy)

    def grads(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Grads:
        z, c = self._centered(params, cache[0])
        g = self._weights(cache, gy).reshape(-1, self.out_features)
        gc = torch.matmul(g.mT, z.reshape(-1, self.in_features)) - g.sum(0).unsqueeze(-1) * c
        return {"centers": gc.to(gy.dtype)}

    def input_grad(self, params: Params, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        z, c = self._centered(params, cache[0])
        g = self._weights(cache, gy)
        return (torch.matmul(g, c) - g.sum(-1, keepdim=True) * z).to(gy.dtype)

    def _centered(self, params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
        return _centered(x, check_param(self, params, "centers", (self.out_features, self.in_features), x))

    def _weights(self, cache: tuple[Tensor, Tensor], gy: Tensor) -> Tensor:
        """Return 2γ gy ⊙ y."""
        x, y = cache
        return check_gy(self, gy, y.shape, x) * y * (2 * self.gamma)

    def param_shapes(self) -> dict[str, Shape]:
        return {"centers": (self.out_features, self.in_features)}


def _centered(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and c minus the mean of c, in float32 or wider: the distances stay the same and round less."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, c = x.to(dtype), c.to(dtype)
    mean = c.mean(0)
    return x - mean, c - mean
