"""Sigmoids: functions that rise from one level to another, and a logarithm of one; elementwise, for x (...) of any shape.

y and gx have the shape of x. ⊙ is the elementwise product.
"""

import torch
from attrs import field
from torch import Tensor

from funcnet.contract import Params
from funcnet.errors import number
from funcnet.kernels import activation as kernels
from funcnet.kernels.limits import finite, has_nan
from funcnet.kernels.tracing import may_search
from funcnet.layers.activation.base import Activation, no_grads
from funcnet.layers.activation.rectifiers import require_bounds
from funcnet.plans import Unchecked
from funcnet.value import frozen


@frozen
class Sigmoid(Activation):
    """Logistic function, without overflow for any x.

        y  = 1 / (1 + e⁻ˣ)
        gx = gy ⊙ y (1 - y)

    The gradient is computed from the rounded y, as in torch. Its error is below one ulp of gy, but it is 0 where y is rounded to
    1: in float32 from x = 17 on. Computed from x, it would be correct to the last digit, but take three times as long.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.nn.Sigmoid``.

    >>> Sigmoid()({}, torch.tensor([0.0]))
    tensor([0.5000])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.sigmoid_backward(gy, y)


@frozen
class Tanh(Activation):
    """Hyperbolic tangent, without overflow for any x.

        y  = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)
        gx = gy ⊙ (1 - y²)

    The gradient is computed from the rounded y, as in torch. Its error is below one ulp of gy, but it is 0 where y is rounded to
    ±1: in float32 from |x| = 9.1 on.

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``torch.nn.Tanh``.

    >>> Tanh()({}, torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7616])
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.tanh(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.tanh_backward(gy, y)

    def unchecked(self, params: Params, cache: Tensor) -> Unchecked | None:
        return _SMALL_TANH if type(self) is Tanh and kernels.is_small_tanh(cache) else super().unchecked(params, cache)


def _small_tanh(params: Params, x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.tanh(x)
    return y, y


def _small_tanh_vjp(params: Params, y: Tensor, gy: Tensor) -> tuple[Params, Tensor]:
    return params, kernels.eager_tanh_backward(gy, y)


_SMALL_TANH = Unchecked(_small_tanh, _small_tanh_vjp, no_grads)


@frozen
class Hardtanh(Activation):
    """Clamp every element to a range; the gradient at the bounds is 0.

        y  = min(max(l, x), h)               l = min_val, h = max_val
        gx = gy where l < x < h, else 0

    Args:
        min_val: Lower bound l.
        max_val: Upper bound h.

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied: in half precision, h can be rounded to a y below h.

    Raises:
        ValueError: If ``min_val`` is not below ``max_val``.

    References:
        Collobert 2004, "Large scale machine learning"; ``torch.nn.Hardtanh``.
    """

    min_val: float = field(default=-1.0, validator=number())
    max_val: float = field(default=1.0, validator=number())

    def __attrs_post_init__(self) -> None:
        require_bounds(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.hardtanh(x, self.min_val, self.max_val), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.hardtanh_backward(gy, x, self.min_val, self.max_val)


@frozen
class Hardsigmoid(Activation):
    """Piecewise linear approximation of the sigmoid.

        y  = min(max(0, x / 6 + ½), 1)
        gx = gy / 6 where -3 < x < 3, else 0

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied: y can be rounded to 0 or 1 although x is between -3 and 3.

    References:
        Courbariaux, Bengio & David 2015, "BinaryConnect"; Howard et al. 2019, "Searching for MobileNetV3", for the slope 1/6.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.hardsigmoid(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.hardsigmoid_backward(gy, x)


@frozen
class SparseSigmoid(Activation):
    """Piecewise linear sigmoid, the derivative of ``SparsePlus``.

        y  = min(max(0, x / 2 + ½), 1)
        gx = gy / 2 where 0 < y < 1, else 0

    Shape:
        x (...) → y (...)

    Cache:
        ``y``, not copied.

    References:
        ``jax.nn.sparse_sigmoid``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.hardtanh((x + 1) / 2, 0.0, 1.0)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.hardtanh_backward(gy, y, 0.0, 1.0) / 2


@frozen
class Softsign(Activation):
    """Softsign, which approaches its bounds ±1 more slowly than tanh.

        y  = x / s           s = 1 + |x|
        gx = gy / s²

    Shape:
        x (...) → y (...)

    Cache:
        s.

    References:
        Bergstra et al. 2009, "Quadratic polynomials learn better image features"; Glorot & Bengio 2010.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s = x.abs() + 1
        y = x / s
        if may_search(x) and not has_nan(y):  # 0.4 µs for 200 elements, clamping with ``finite`` 1.2
            return y, s
        x = finite(x)
        s = x.abs() + 1
        return x / s, s

    def backward(self, gy: Tensor, s: Tensor) -> Tensor:
        return gy / s / s


@frozen
class LogSigmoid(Activation):
    """Logarithm of the sigmoid, without overflow for any x.

        y  = -log(1 + e⁻ˣ)
        gx = gy / (1 + eˣ)

    Shape:
        x (...) → y (...)

    Cache:
        ``x``, not copied.

    References:
        ``torch.nn.LogSigmoid``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.log_sigmoid(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.log_sigmoid_backward(gy, x)
