"""Lines of many formulas. A weight decay of the number 0 reads no parameter, even an infinite one."""

from typing import Any

import torch
from torch import Tensor

from funcnet.optim.rates import is_zero


def along(g: Tensor, maximize: bool) -> Tensor:
    """Return the gradient of what is minimized: ±g."""
    return -g if maximize else g


def add_decay(g: Tensor, p: Tensor, decay: Any) -> Tensor:
    """Return g + λ p, the gradient with weight decay as an L2 penalty."""
    return g if is_zero(decay) else g + decay * p


def shrink(p: Tensor, lr: Any, decay: Any) -> Tensor:
    """Return (1 - η λ) p, decoupled weight decay."""
    return p if is_zero(decay) else p * (1 - lr * decay)


def sign(x: Tensor) -> Tensor:
    """Return the signs of a tensor, NaN for NaN: ``torch.sign`` returns 0, which would hide it."""
    return torch.where(x.isnan(), x, x.sign())
