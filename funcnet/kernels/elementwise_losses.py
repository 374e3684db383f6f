"""Kernels of losses with one term per element. Times are for 100×2 elements, and in parentheses for 1000×100.

Kernels that turn infinities into NaN run first. If the result has NaN, or if values cannot be read, a formula with the correct
limits runs instead.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from funcnet.kernels import activation
from funcnet.kernels.limits import LARGEST, finite, has_nan
from funcnet.kernels.losses import where_positive
from funcnet.kernels.private_names import builtin
from funcnet.kernels.tracing import can_look_at, is_differentiated, is_eager, is_plain, may_search

_aten = torch.ops.aten

Kernel = Callable[..., Tensor]

_huber: Kernel = builtin("huber_loss")
_huber_backward: Kernel = _aten.huber_loss_backward.default
_smooth_l1: Kernel = builtin("smooth_l1_loss")
_smooth_l1_backward: Kernel = _aten.smooth_l1_loss_backward.default
_NONE, _SUM = 0, 2

# Between these, torch's kernel of smooth L1, which squares before dividing, neither overflows nor underflows in float32.
_BETAS = (1e-9, 1e9)


def _may_fuse(y: Tensor, t: Tensor) -> bool:
    return is_eager() and not is_differentiated(y, t)


def huber(y: Tensor, t: Tensor, delta: float) -> Tensor:
    """Return ½ d² within ±δ, else δ (|d| - δ/2): 1.3 µs (11) with torch's kernel and 5.6 (54) with the formula.

    The formula is r (d - r/2), with r = d clamped to ±δ; compiled, it is one loop.
    """
    if _may_fuse(y, t):
        return _huber(y, t, _NONE, delta)
    d = y - t
    r = activation.bounded(d, -delta, delta)
    return r * torch.sub(d, r, alpha=0.5)


def huber_slope(y: Tensor, t: Tensor, delta: float, c: Tensor | float) -> Tensor:
    """Return c r, r = d clamped to ±δ: 2.5 µs (15) with torch's kernel if c is a 0-d tensor, 3.4 (25) with the formula."""
    if isinstance(c, Tensor) and c.dim() == 0 and _may_fuse(y, t):
        return _huber_backward(c, y, t, _SUM, delta)
    return activation.bounded(y - t, -delta, delta) * c


def smooth_l1(y: Tensor, t: Tensor, beta: float) -> Tensor:
    """Return ½ d²/β within ±β, else |d| - β/2, and |d| for β = 0; it takes as long as ``huber``.

    The formula is s (d - s β/2), where s is the derivative.
    """
    if _BETAS[0] < beta < _BETAS[1] and _may_fuse(y, t):
        return _smooth_l1(y, t, _NONE, beta)
    d = y - t
    s = _smooth_sign(d, beta)
    return s * torch.sub(d, s, alpha=beta / 2)


def smooth_l1_slope(y: Tensor, t: Tensor, beta: float, c: Tensor | float) -> Tensor:
    """Return c s, s = d/β clamped to ±1."""
    if isinstance(c, Tensor) and c.dim() == 0 and _BETAS[0] < beta < _BETAS[1] and _may_fuse(y, t):
        return _smooth_l1_backward(c, y, t, _SUM, beta)
    return _smooth_sign(y - t, beta) * c


def _smooth_sign(d: Tensor, beta: float) -> Tensor:
    return activation.bounded(d / beta, -1.0, 1.0) if beta else d.sign()


# Up to this |d|, log cosh d is computed from tanh² d, above it from |d|: both are exact to a few ulps there.
_NEAR_TANH = 0.75
_NEAR = 0.9729550745276566


def log_cosh(d: Tensor, th: Tensor) -> Tensor:
    """Return log cosh d from d and th = tanh d: -½ log(1 - th²) for small d, else |d| - log(1 + |th|), exact for any d.

    Both cases are added, each clamped to a constant where the other applies: 1000×100 take 208 µs, and a single ``torch.where``
    with a random condition 220.
    """
    near = th.clamp(-_NEAR_TANH, _NEAR_TANH)
    if is_differentiated(d, th):
        size = th.abs()
        return torch.where(size < _NEAR_TANH, -0.5 * torch.log1p(-near * near), d.abs() - size.log1p())
    far = (activation.softshrink(th, _NEAR_TANH).abs() / (1 + _NEAR_TANH)).log1p()
    return activation.softshrink(d, _NEAR).abs() - far - 0.5 * torch.log1p(-near * near)


def kl_terms(y: Tensor, t: Tensor) -> Tensor:
    """Return t (log t - y), 0 where t is 0.

    It takes 4.6 µs (99), plus 0.5 (3.5) to search for NaN; the formula with the limits takes 14 (296). Where t is 0, the
    derivatives of the formula in y and in t are 0.
    """
    if is_plain(y, t):
        terms = t.log().clamp_min_(-LARGEST[t.dtype]).sub_(y).mul_(t)
        if not has_nan(terms):
            return terms
    p = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, finite(y) * 0, p * (p.log() - y))


def kl_target_slope(y: Tensor, t: Tensor) -> Tensor:
    """Return log t + 1 - y, and 0 where t is 0: the limit of its product with t, which a preceding softmax computes."""
    p = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, 0.0, p.log() + 1 - y)


def generalized_kl_target_slope(y: Tensor, t: Tensor) -> Tensor:
    """Return log t - y, and -1 where t is 0: the derivative of -t, plus 0 for that of t (log t - y)."""
    p = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, -1.0, p.log() - y)


def log_kl_terms(y: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Return p (t - y), p = e^t, and 0 where p is 0."""
    if may_search(y):
        terms = (t - y) * p
        if not has_nan(terms):
            return terms
    q, log_q = torch.where(p == 0, 1.0, p), torch.where(p == 0, 0.0, t)
    return torch.where(p == 0, finite(y) * 0, q * (log_q - y))


def log_kl_target_slope(y: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Return p (t - y + 1), and 0 where p is 0."""
    return torch.where(p == 0, 0.0, p * (torch.where(p == 0, 0.0, t) - y + 1))


def poisson_terms(rate: Tensor, log_rate: Tensor, t: Tensor) -> Tensor:
    """Return λ - t log λ; 0 where λ and t are 0, and ∞ where λ is ∞: ``counted`` removes the products that would be NaN."""
    if may_search(t):
        terms = torch.addcmul(rate, t, log_rate, value=-1)
        if not has_nan(terms):
            return terms
    return rate - t * counted(t, log_rate)


def counted(t: Tensor, log_rate: Tensor) -> Tensor:
    """Return log λ, but 0 where its product with t would be NaN: the derivative of the product in t."""
    return torch.where(log_rate.isinf() & ((t == 0) | (log_rate > 0)), 0.0, log_rate)


_HALF_LOG_2PI = 0.9189385332046727


def stirling(t: Tensor) -> Tensor:
    """Return t log t - t + ½ log 2πt where t > 1, else 0: Stirling's approximation of log t!."""
    u = t.clamp_min(1)
    return ((u + 0.5) * u.log() - u + _HALF_LOG_2PI) * (t > 1)


def stirling_slope(t: Tensor) -> Tensor:
    """Return log t + 1 / 2t where t > 1, else 0."""
    u = t.clamp_min(1)
    return (u.log() + 0.5 / u) * (t > 1)


def bounded_variance(var: Tensor, eps: float) -> Tensor:
    """Return the variance clamped from below at ``eps``; NaN where it is negative and values cannot be read.

    Under differentiation the derivative is 1 below ``eps`` too.
    """
    if can_look_at(var) and not is_differentiated(var):
        return var.clamp_min(eps)
    bounded = torch.where(var < eps, eps + (var - var.detach()), var)
    return torch.where(var < 0, math.nan, bounded)


def has_negative(x: Tensor) -> bool:
    """Return whether x has negative elements, if they can be read: 1.6 µs (5.8)."""
    return can_look_at(x) and x.numel() > 0 and x.amin().item() < 0


def has_others_than_signs(t: Tensor) -> bool:
    """Return whether t has elements other than 1 and -1, if they can be read: 2.6 µs (57)."""
    return can_look_at(t) and not t.abs().equal(torch.ones_like(t))


def has_no_sign(t: Tensor) -> bool:
    """Return whether t has a 0 or NaN, if its elements can be read."""
    return can_look_at(t) and t.numel() > 0 and not t.abs().amin().item() > 0


def is_positive(t: Tensor) -> Tensor:
    """Return 1 for positive and 0 for negative elements; NaN for 0 and NaN if values cannot be read."""
    if can_look_at(t):
        return (t > 0).to(t.dtype)
    return torch.where(t > 0, torch.ones_like(t), torch.where(t < 0, torch.zeros_like(t), math.nan))


def hinge_at(y: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Return y where ``similar`` is 1, max(0, margin - y) where it is 0, and NaN where it is NaN.

    It takes 38 µs for 1000×100, and 800 with ``torch.where``.
    """
    other = activation.positive_part(margin - y)
    if can_look_at(y):
        terms = torch.lerp(other, y, similar)  # exact for the weights 0 and 1
        if not has_nan(terms):
            return terms
    return torch.where(similar == 1, y, torch.where(similar == 0, other, math.nan))


def hinge_at_slope(y: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Return the derivative of ``hinge_at``; at y = margin it is -1, as in torch."""
    return torch.addcmul(similar, similar - 1, (y <= margin).to(y.dtype))


def soft_margin_target_slope(y: Tensor, t: Tensor) -> Tensor:
    """Return -y σ(-t y), and 0 where σ is 0."""
    s = activation.log_sigmoid_backward(torch.ones_like(y), t * y)
    return -where_positive(y * s, s)
