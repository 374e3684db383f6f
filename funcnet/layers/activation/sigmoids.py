"""Sigmoids: functions that rise from one level to another, and the logarithm of one; by element, for x (...) of any shape.

Sigmoid         y = 1 / (1 + e⁻ˣ)                   gx = gy ⊙ y (1 - y)
Tanh            y = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)         gx = gy ⊙ (1 - y²)
Hardtanh        y = min(max(l, x), h)               gx = gy where l < x < h, else 0
Hardsigmoid     y = min(max(0, x / 6 + 1/2), 1)     gx = gy / 6 where -3 < x < 3, else 0
SparseSigmoid   y = min(max(0, x / 2 + 1/2), 1)     gx = gy / 2 where 0 < y < 1, else 0
Softsign        y = x / s                           gx = gy / s²               s = 1 + |x|
LogSigmoid      y = -log(1 + e⁻ˣ)                   gx = gy / (1 + eˣ)
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
    """Logistic function 1 / (1 + e⁻ˣ), without overflow for any x.

    The gradient is computed from the rounded y, as in torch. Its error is below an ulp of ``gy``; but where y is rounded to 1,
    from x = 17 on in float32, it is 0. From x it would be right to its last digit and take three times as long.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.Sigmoid``'s formula.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(x)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.sigmoid_backward(gy, y)


@frozen
class Tanh(Activation):
    """Hyperbolic tangent, without overflow for any x.

    The gradient is computed from the rounded y, as in torch. Its error is below an ulp of ``gy``; but where y is rounded to ±1,
    from |x| = 9.1 on in float32, it is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.Tanh``'s formula.
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
    """x between two bounds, which it does not leave; the gradient at the bounds is 0.

    Params   none.
    Cache    ``x``: in half precision y = h may be rounded to a number below h.
    Raises   ``ValueError`` for bounds that are not finite or out of order, and when ``x`` is not a floating tensor.
    Source   Collobert 2004.
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
    """Sigmoid of straight lines, min(max(0, x / 6 + 1/2), 1); the gradient at -3 and at 3 is 0.

    Params   none.
    Cache    ``x``, since y may be rounded to 0 or 1 where x is still between the bounds.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Courbariaux, Bengio & David 2015; with a slope of 1/6 Howard et al. 2019.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.hardsigmoid(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.hardsigmoid_backward(gy, x)


@frozen
class SparseSigmoid(Activation):
    """The derivative of ``SparsePlus``: min(max(0, x / 2 + 1/2), 1); the gradient at -1 and at 1 is 0.

    Params   none.
    Cache    ``y``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``jax.nn.sparse_sigmoid``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = kernels.hardtanh((x + 1) / 2, 0.0, 1.0)
        return y, y

    def backward(self, gy: Tensor, y: Tensor) -> Tensor:
        return kernels.hardtanh_backward(gy, y, 0.0, 1.0) / 2


@frozen
class Softsign(Activation):
    """x / (1 + |x|), which goes to its bounds -1 and 1 more slowly than Tanh.

    Params   none.
    Cache    1 + |x|.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   Bergstra et al. 2009; Glorot & Bengio 2010.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s = x.abs() + 1
        y = x / s
        if may_search(x) and not has_nan(y):  # 0.4 µs for 200 elements, and the bounds of ``finite`` 1.2
            return y, s
        x = finite(x)
        s = x.abs() + 1
        return x / s, s

    def backward(self, gy: Tensor, s: Tensor) -> Tensor:
        return gy / s / s


@frozen
class LogSigmoid(Activation):
    """Logarithm of Sigmoid, -log(1 + e⁻ˣ), without overflow for any x.

    Params   none.
    Cache    ``x``.
    Raises   ``ValueError`` when ``x`` is not a floating tensor.
    Source   ``torch.nn.LogSigmoid``'s formula.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.log_sigmoid(x), x

    def backward(self, gy: Tensor, x: Tensor) -> Tensor:
        return kernels.log_sigmoid_backward(gy, x)
