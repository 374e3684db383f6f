"""Kernels of losses. Times are for 100×2 elements."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import activation, private_names
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.private_names import direct
from funcnet.kernels.tracing import is_differentiated, is_plain

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

SQUARES = choice("sums of squares", {"dot": NEVER, "sum": 0}, lambda cpu: 65537, "terms")
"""Number of terms from which squares are summed with ``sum``; see ``square_sum``."""

_FULL = (torch.float32, torch.float64)
log_softmax_backward: Kernel = activation.log_softmax_backward
log_sigmoid: Kernel = activation.log_sigmoid
magnitude: Kernel = activation.magnitude
_binary_cross_entropy: Kernel = _aten.binary_cross_entropy.default
_nll_loss: Callable[..., tuple[Tensor, Tensor]] = _aten.nll_loss_forward.default
_nll_loss_2d: Callable[..., tuple[Tensor, Tensor]] = _aten.nll_loss2d_forward.default
_nll_loss_backward: Kernel = _aten.nll_loss_backward.default
_nll_loss_2d_backward: Kernel = _aten.nll_loss2d_backward.default


# The same, for eager mode only and rows of classes.
eager_nll: Callable[..., tuple[Tensor, Tensor]] = direct(_nll_loss)
eager_nll_backward: Kernel = direct(_nll_loss_backward)
eager_log_softmax_backward: Kernel = private_names.log_softmax_backward


def factor(n: int, like: Tensor) -> Tensor | float:
    """Return 1 / n as a 0-d tensor, or NaN for n = 0: multiplying by it takes 0.9 µs, by a Python number 1.9.

    In half precision, return a Python number, since a tensor would be rounded before the product.
    """
    share = 1 / n if n else math.nan
    return like.new_full((), share) if like.dtype in _FULL else share


def weighted_sum(terms: Tensor, c: Tensor | float) -> Tensor:
    """Return c Σ terms; half precision is summed in float32, since the sum can overflow where the product does not."""
    return terms.sum() * c if terms.dtype in _FULL else (terms.sum(dtype=torch.float32) * c).to(terms.dtype)


def square_sum(d: Tensor, c: Tensor | float) -> Tensor:
    """Return c Σ d². For 100×2, a dot product takes 2.3 µs, squares and their sum 3.8.

    The rounding error of the dot product grows with the number of terms (1.7e-6 for a million, 2e-3 for 10⁸), that of ``sum``
    does not.
    """
    size = d.numel()
    if type(size) is int and size < SQUARES.value and d.dtype in _FULL:  # not for a symbolic size
        d = d.ravel()
        return torch.dot(d, d) * c
    return weighted_sum(d * d, c)


# 1e-12 in float32, which torch's derivative uses in float64 too.
_LEAST_SPREAD = 9.999999960041972e-13


def binary_cross_entropy(y: Tensor, t: Tensor) -> Tensor:
    """Return -t log y - (1 - t) log(1 - y), with logarithms of at least -100; the next functions are its derivatives.

    In torch, the derivative in t does not have this bound, and the derivative in y is 0 where y = t is 0 or 1.
    """
    if not is_differentiated(y, t):
        return _binary_cross_entropy(y, t, None, 0)
    fixed = t.detach()
    terms = _binary_cross_entropy(y, fixed, None, 0) + (t - fixed) * binary_target_slope(y)
    return terms + _lack(y, t) * (y - y.detach())


def binary_slope(y: Tensor, t: Tensor) -> Tensor:
    """Return (y - t) / p, with p = y (1 - y) clamped to at least 1e-12, and its limit 1 - 2 t near y = t = 0 or 1.

    The limit is added in proportion to how far p is below 1e-12. Plain tensors are first searched for such a p, which takes 1.3
    µs for 100×2; the other kernels take 6.
    """
    p = y * (1 - y)
    slope = (y - t) / p.clamp_min(_LEAST_SPREAD)
    is_inside = is_plain(p, slope) and p.numel() and p.amin().item() >= _LEAST_SPREAD
    return slope if is_inside else slope + _lack(y, t)


def _lack(y: Tensor, t: Tensor) -> Tensor:
    """Return (1 - 2 t) max(0, 1 - y (1 - y) / 1e-12) where t is 0 or 1; 0 elsewhere."""
    y, t = y.detach(), t.detach()
    share = (1 - y * (1 - y) / _LEAST_SPREAD).clamp_min(0.0)
    return torch.rsub(t, 1, alpha=2) * share * ((t == 0) | (t == 1))


def binary_target_slope(y: Tensor) -> Tensor:
    """Return log(1 - y) - log y, each at least -100; its derivative is 0 at 0 and 1, where that of a clamped log 0 is NaN."""
    if not is_differentiated(y):
        return (-y).log1p().clamp_min(-100) - y.log().clamp_min(-100)
    certain = (y == 0) | (y == 1)
    z = torch.where(certain, 0.5, y)
    return torch.where(certain, 100 - 200 * y.detach(), (-z).log1p().clamp_min(-100) - z.log().clamp_min(-100))


def where_positive(x: Tensor, y: Tensor) -> Tensor:
    """Return x where y is positive or NaN, else 0: 12 µs for 1000×100 with random signs, and 550 with ``torch.where``."""
    return activation.threshold_backward(x, y, 0)


def product(q: Tensor, x: Tensor) -> Tensor:
    """Return q x, with 0 where q is 0, even if x is infinite or NaN there."""
    if is_differentiated(q, x):
        return q * torch.where((q == 0) & ~torch.isfinite(x), 0.0, x)
    return where_positive(q * x, q.abs())


def is_known(total: Tensor, n: int) -> bool:
    """Return whether a count equals n, if it can be read without waiting and n is small enough to be exact in float32."""
    return is_countable(n) and is_plain(total) and total.item() == n


def is_countable(n: int) -> bool:
    """Return whether a number of rows is a Python number, not a symbol, and exact in float32."""
    return type(n) is int and 0 < n < 1 << 24


def nll(logp: Tensor, labels: Tensor, weight: Tensor | None, reduction: int, ignore: int) -> tuple[Tensor, Tensor]:
    """Return -w log p at each row's label, by row (reduction 0) or summed (2), and Σ w; one kernel, 2.0 µs for 64×10.

    The classes are axis 1 of ``logp``, or axis 0 if it has no other; rows with the label ``ignore`` do not count.
    """
    if logp.dim() <= 2:
        return _nll_loss(logp, labels, weight, reduction, ignore)
    flat, total = _nll_loss_2d(logp.flatten(2).unsqueeze(3), labels.flatten(1).unsqueeze(2), weight, reduction, ignore)
    return flat.reshape(labels.shape) if reduction == 0 else flat, total


def nll_backward(
    g: Tensor, logp: Tensor, labels: Tensor, weight: Tensor | None, reduction: int, ignore: int, total: Tensor
) -> Tensor:
    """Return the gradient of ``logp``: -g w at each row's label, else 0; ``total`` can be any 0-d tensor.

    It takes 2.1 µs for 64×10. Together with the backward of log_softmax it takes 7.5 µs, and 29 for 1024×65; (p - one-hot) g,
    computed with an exponential, ``scatter_add_`` and a product, takes 5.1 and 50.
    """
    if logp.dim() <= 2:
        return _nll_loss_backward(g, logp, labels, weight, reduction, ignore, total)
    g = g.flatten(1).unsqueeze(2) if reduction == 0 else g
    rows, at = logp.flatten(2).unsqueeze(3).contiguous(), labels.flatten(1).unsqueeze(2)  # the kernel rejects other strides
    return _nll_loss_2d_backward(g, rows, at, weight, reduction, ignore, total).reshape(logp.shape)
