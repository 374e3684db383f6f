"""FunctionalLinear: a linear map whose weights are part of x, for weights that are computed or used in several places.

x (..., in), w (out, in), b (out,), y (..., out).
"""

from typing import Any

import torch
from torch import Tensor

from funcnet.checks import Misfit, check_gy, floating_complaint, require_no_params
from funcnet.contract import Grads, Layer, Params, Rng
from funcnet.kernels import linear as kernels
from funcnet.value import frozen


@frozen
class FunctionalLinear(Layer):
    """Affine map of the last axis, with the weight and the bias as inputs.

        y  = x wᵀ + b
        gx = gy w    gw = gyᵀ x    gb = Σ gy          sums over all rows

    Shape:
        x, a tuple of x (..., in), weight (out, in) and optionally bias (out,) → y (..., out)

    Cache:
        The tensors of x, not copied, and the shape of y.

    Raises:
        ValueError: If the tensors do not fit each other.

    References:
        ``torch.nn.functional.linear``.

    >>> FunctionalLinear()({}, (torch.ones(2, 3), torch.ones(4, 3))).shape
    torch.Size([2, 4])
    """

    def apply(self, params: Params, x: tuple[Tensor, ...], rng: Rng = None) -> tuple[Tensor, Any]:
        require_no_params(self, params)
        if self.complaint(x):
            raise Misfit
        y = kernels.linear(*x)
        return y, (x, tuple(y.shape))

    def vjp(self, params: Params, cache: Any, gy: Tensor) -> tuple[Grads, tuple[Tensor, ...]]:
        (x, w, *rest), of = cache
        gw, gb, gx = kernels.linear_vjp(check_gy(self, gy, of, x), x, w, bool(rest))
        return params, (gx, gw) if gb is None else (gx, gw, gb)

    def complaint(self, x: Any) -> str | None:
        rule = "x must be a tuple (x (..., in), weight (out, in)) or (x, weight, bias (out,)), floating, of one dtype"
        if not isinstance(x, tuple) or len(x) not in (2, 3) or any([floating_complaint(one) for one in x]):  # noqa: C419
            return rule
        fits = x[1].dim() == 2 and x[0].dim() > 0 and x[0].shape[-1] == x[1].shape[1]
        fits = fits and x[0].dtype is x[1].dtype is x[-1].dtype and x[0].layout is torch.strided
        return None if fits and (len(x) == 2 or tuple(x[2].shape) == (x[1].shape[0],)) else rule
