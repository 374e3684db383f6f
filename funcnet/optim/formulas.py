"""Terms that many formulas share. A weight decay of exactly 0 ignores the parameter: 0 times infinity would be NaN."""

from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import optim as kernels
from funcnet.optim.rates import is_zero


def along(g: Tensor, maximize: bool) -> Tensor:
    """Return ±g, the gradient of the quantity that is minimized."""
    return -g if maximize else g


def add_decay(g: Tensor, p: Tensor, decay: Any) -> Tensor:
    """Return g + λ p: weight decay as an L2 penalty."""
    return g if is_zero(decay) else descend(g, p, -decay)


def shrink(p: Tensor, lr: Any, decay: Any) -> Tensor:
    """Return (1 - η λ) p: decoupled weight decay."""
    return p if is_zero(decay) else p * (1 - lr * decay)


def mean(m: Tensor, x: Tensor, beta: Any) -> Tensor:
    """Return β m + (1 - β) x, a running mean, in one pass through memory instead of three."""
    return m.lerp(x, 1 - beta)


def mean_square(v: Tensor, x: Tensor, beta: Any) -> Tensor:
    """Return β v + (1 - β) x². ``mean`` would turn an infinite square into NaN at the next step: ∞ + (1 - β) (x² - ∞)."""
    return beta * v + (1 - beta) * x * x if isinstance(beta, Tensor) else torch.addcmul(v * beta, x, x, value=1 - beta)


def descend(p: Tensor, step: Tensor, lr: Any) -> Tensor:
    """Return p - η s, in one pass through memory if η is a number."""
    return p - lr * step if isinstance(lr, Tensor) else p.sub(step, alpha=lr)


def trust_ratio(p: Tensor, u: Tensor, coefficient: float = 1.0, eps: float = 0.0) -> Tensor:
    """Return κ ‖p‖ / (‖u‖ + ε), or 1 if one of the norms is 0; NaN if one is NaN."""
    size, step = p.norm(), u.norm()
    ratio: Tensor = (coefficient * size / (step + eps)).where((size != 0) & (step != 0), 1.0)
    return ratio


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return a if the condition holds, else b; in compiled code and under ``vmap`` the condition is a 0-d tensor."""
    if isinstance(condition, Tensor):
        return kernels.choose(condition, a, b)
    return a if condition else b


def sign(x: Tensor) -> Tensor:
    """Return the signs of a tensor, with NaN for NaN: ``torch.sign`` returns 0 and hides it."""
    return torch.where(x.isnan(), x, x.sign())


def smaller(a: Any, b: Any) -> Any:
    """Return the smaller of two numbers or 0-d tensors; a tensor is on the device of ``a``."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return min(a, b)
    return torch.minimum(*_on_one_device(a, b))


def larger(a: Any, b: Any) -> Any:
    """Return the larger of two numbers or 0-d tensors; a tensor is on the device of ``a``."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return max(a, b)
    return torch.maximum(*_on_one_device(a, b))


def _on_one_device(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    first, second = (torch.as_tensor(one, dtype=torch.float64) for one in (a, b))
    return first, second.to(first.device)
