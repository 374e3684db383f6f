"""Kernels of optimizers: whole steps in place, one leaf after another, with one tensor of scratch memory.

A leaf stays in the cache from its first operation to its last. Times are for 10 million float32 parameters in 100 donated
tensors, on one thread. Without ``donated`` the same kernels run on clones, and return the same bits. In compiled code and under
transforms the optimizers use their formulas, which round differently.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.optim import FULL, Tensors
from funcnet.kernels.optim_steps import by_rows, in_memory
from funcnet.kernels.tracing import is_eager

Numbers = Sequence[Any]

LEAVES = choice("steps of optimizers", {"formula": NEVER, "leaf by leaf": 0}, lambda cpu: 0)
"""Whether Lion, RMSprop, Adamax and Adagrad step in place, leaf by leaf."""


def _serves(columns: Sequence[Tensors], rates: Numbers) -> bool:
    """Return whether these kernels support the arguments: plain tensors in main memory and full precision, rates as numbers."""
    if LEAVES.value or not is_eager() or not in_memory(columns) or any([isinstance(one, Tensor) for one in rates]):  # noqa: C419
        return False
    return all([x.dtype in FULL for x in columns[0]])  # noqa: C419


def _each(step: Callable[..., None], *columns: Tensors, **numbers: Any) -> None:
    """Call ``step`` with the tensors of each leaf and a scratch tensor, which consecutive leaves of equal shape share."""
    kind = scratch = None
    for row in zip(*columns, strict=True):
        now = row[0].shape, row[0].stride(), row[0].dtype
        if now != kind:
            kind, scratch = now, torch.empty_like(row[0])
        step(*row, scratch, **numbers)


def lion(columns: Sequence[Tensors], rates: Numbers, maximize: bool, donated: bool) -> Sequence[Tensors] | None:
    """Return Lion's new p and m from p, g and m; ``None`` if the formula must be used.

    ``rates`` are lr, both betas and the decay. A step takes 9 ms; the formula takes 19 leaf by leaf, and 13 on lists of all
    leaves. A subnormal direction, below 10⁻³⁸ in float32, moves p by a fraction of lr.
    """
    if not _serves(columns, rates) or rates[0] >= 1:  # lr / tiny must be finite
        return None
    return by_rows(lambda *given: _each(_lion, *given, rates=rates, maximize=maximize), columns, donated)


def _lion(p: Tensor, g: Tensor, m: Tensor, u: Tensor, rates: Numbers, maximize: bool) -> None:
    lr, beta1, beta2, decay = rates
    g = -g if maximize else g
    tiny = torch.finfo(u.dtype).tiny
    torch.lerp(m, g, 1 - beta1, out=u).clamp_(-tiny, tiny)  # ±tiny for the sign: sign_ turns NaN into 0
    m.lerp_(g, 1 - beta2)  # before p is written, which can share the memory of g
    if decay:
        p.mul_(1 - lr * decay)
    p.add_(u, alpha=-lr / tiny)  # exact: tiny is a power of 2


def rmsprop(
    columns: Sequence[Tensors], rates: Numbers, eps: float, centered: bool, maximize: bool, donated: bool
) -> Sequence[Tensors] | None:
    """Return RMSprop's new p and moments from p, g and the moments; ``None`` if the formula must be used.

    ``rates`` are lr, alpha, the decay and the momentum. The moments are v, the buffer if there is momentum, and the mean if
    ``centered``. A step takes 12 ms; the formula takes 18 leaf by leaf, and 14 on lists of all leaves. Centered and with momentum
    these are 18, 30 and 25.
    """
    if not _serves(columns, rates):
        return None
    numbers = {"rates": rates, "eps": eps, "centered": centered, "maximize": maximize}
    return by_rows(lambda *given: _each(_rmsprop, *given, **numbers), columns, donated)


def _rmsprop(
    p: Tensor, g: Tensor, v: Tensor, *others: Tensor, rates: Numbers, eps: float, centered: bool, maximize: bool
) -> None:
    (lr, alpha, decay, momentum), (*more, below) = rates, others
    g = -g if maximize else g
    g = g.add(p, alpha=decay) if decay else g
    v.mul_(alpha).addcmul_(g, g, value=1 - alpha)
    if centered:
        mean = more[-1].lerp_(g, 1 - alpha)
        torch.addcmul(v, mean, mean, value=-1, out=below).clamp_(min=0.0).sqrt_().add_(eps)
    else:
        torch.sqrt(v, out=below).add_(eps)
    if len(more) > centered:
        p.add_(more[0].mul_(momentum).addcdiv_(g, below), alpha=-lr)
    else:
        p.addcdiv_(g, below, value=-lr)


def adamax(columns: Sequence[Tensors], rates: Numbers, eps: float, maximize: bool, donated: bool) -> Sequence[Tensors] | None:
    """Return Adamax's new p, m and u from p, g, m and u; ``None`` if the formula must be used.

    ``rates`` are the corrected lr, both betas and the decay. A step takes 11 ms, and 17 with the formula, leaf by leaf or on
    lists.
    """
    if not _serves(columns, rates):
        return None
    return by_rows(lambda *given: _each(_adamax, *given, rates=rates, eps=eps, maximize=maximize), columns, donated)


def _adamax(p: Tensor, g: Tensor, m: Tensor, u: Tensor, size: Tensor, rates: Numbers, eps: float, maximize: bool) -> None:
    rate, beta1, beta2, decay = rates
    g = -g if maximize else g
    g = g.add(p, alpha=decay) if decay else g
    m.lerp_(g, 1 - beta1)
    torch.maximum(u.mul_(beta2), torch.abs(g, out=size).add_(eps), out=u)
    p.addcdiv_(m, u, value=-rate)


def adagrad(
    columns: Sequence[Tensors], step: Tensor, rates: Numbers, eps: float, maximize: bool, donated: bool
) -> Sequence[Tensors] | None:
    """Return Adagrad's new p and sum from p, g and the sum; ``None`` if the formula must be used.

    ``rates`` are lr, its decay and the weight decay; ``step`` counts from 1. A step takes 3.8 ms, and 16 with the formula.
    """
    kernel = torchs.fused_adagrad
    if kernel is None or not _serves(columns, rates):
        return None
    lr, lr_decay, decay = rates
    numbers = {"lr": lr, "lr_decay": lr_decay, "weight_decay": decay, "eps": eps, "maximize": maximize}
    return by_rows(lambda ps, gs, sums: kernel(ps, gs, sums, [step] * len(ps), **numbers), columns, donated)
