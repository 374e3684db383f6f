"""Kernels of optimizers: whole steps of SGD and Adam, fused if torch has a kernel. Times are for the same net as in ``optim``."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.choices import NEVER, choice
from funcnet.kernels.optim import FULL, Tensors, add_each, kept, lerp_each, materialize_scalar, narrowed, read, scale_each
from funcnet.kernels.tracing import is_eager

_foreach_add_: Callable[..., None] = torchs.foreach_add_
_foreach_mul: Callable[..., Tensors] = torchs.foreach_mul
_foreach_sqrt: Callable[..., Tensors] = torchs.foreach_sqrt
_foreach_maximum: Callable[..., Tensors] = torchs.foreach_maximum
_foreach_maximum_: Callable[..., None] = torchs.foreach_maximum_
_foreach_addcdiv: Callable[..., Tensors] = torchs.foreach_addcdiv
_foreach_addcdiv_: Callable[..., None] = torchs.foreach_addcdiv_
_foreach_clone: Callable[..., Tensors] = torchs.foreach_clone
_HAS_ADAM = torchs.fused_adam is not None and torchs.fused_adamw is not None
ADAM = choice("Adam", {"lists": NEVER, "fused": 0}, lambda cpu: 0 if _HAS_ADAM else NEVER)
"""Whether torch's fused kernel computes Adam's steps; see ``adam``."""

_is_cpu = attrgetter("is_cpu")


class Rows(list[Tensors]):
    """Lists of tensors that are known to be contiguous and in main memory, which kernels therefore do not check again."""


def in_rows(columns: Sequence[Tensors]) -> bool:
    """Return whether all tensors are contiguous and in main memory: 2.5 µs for three lists that are not ``Rows``."""
    return type(columns) is Rows or (in_memory(columns) and all([all(map(Tensor.is_contiguous, one)) for one in columns]))  # noqa: C419


def in_memory(columns: Sequence[Tensors]) -> bool:
    """Return whether all tensors are in main memory."""
    return type(columns) is Rows or all([all(map(_is_cpu, column)) for column in columns])  # noqa: C419


# Number of bytes of params and moments that are copied, and then stepped while the copies are in the cache.
_GROUP = 4 << 20

# Fused kernels go through memory in blocks of 64 bytes, and round the elements of an incomplete block differently.
_STEP = 16


def by_rows(run: Callable[..., None], columns: Sequence[Tensors], donated: bool) -> Sequence[Tensors]:
    """Run a fused kernel that writes the new params and moments, such that results do not depend on strides, bit for bit.

    The kernel goes through the memory of all tensors of a leaf in parallel. They are made contiguous, unless they have the same
    layout and fill whole blocks, since then their order does not matter. An update of 295 thousand parameters in channels_last
    takes 0.45 ms, and 1.7 with contiguous copies.
    """
    ps, gs, *moments = columns
    old = [ps, *moments]
    if in_rows(columns):
        if not donated:
            return on_copies(run, columns, groups(columns))
        run(ps, gs, *moments)
        return old
    kept = [_fill_steps(p, xs) for p, *xs in zip(*old, strict=True)]
    rows = [[_row(x, keep, donated) for x, keep in zip(column, kept, strict=True)] for column in old]
    run(rows[0], [_with_strides_of(g, p, keep) for g, p, keep in zip(gs, ps, kept, strict=True)], *rows[1:])
    return [
        [_like_old_values(*one, donated) for one in zip(new, column, kept, strict=True)]
        for new, column in zip(rows, old, strict=True)
    ]


def groups(columns: Sequence[Tensors]) -> list[slice]:
    """Split leaves into groups of params and moments of 4 MB or slightly more: 0.5 µs for eight leaves in one group."""
    begins, size = [0], 0
    for i, p in enumerate(columns[0]):
        if size >= _GROUP:
            begins.append(i)
            size = 0
        size += p.numel() * p.element_size() * (len(columns) - 1)
    return [slice(*ends) for ends in pairwise([*begins, len(columns[0])])]


def on_copies(run: Callable[..., None], columns: Sequence[Tensors], parts: Sequence[slice]) -> Sequence[Tensors]:
    """Run a kernel that writes new params and moments into copies of the old ones, one group of leaves after another.

    The copies of a group are then still in the cache. AdamW of 10 million parameters in 100 tensors takes 64 ms in groups and 79
    with all copies first, in 400 tensors 62 and 75, and in place 11, on an AMD EPYC (Zen 4) with busy memory.
    """
    if len(parts) == 1:
        return _on_copies(run, columns)
    new: list[list[Tensor]] = [[] for _ in columns[1:]]
    for part in parts:
        for column, some in zip(new, _on_copies(run, [column[part] for column in columns]), strict=True):
            column.extend(some)
    return new


def _on_copies(run: Callable[..., None], columns: Sequence[Tensors]) -> Sequence[Tensors]:
    ps, gs, *moments = columns
    ps, *moments = new = [_foreach_clone(ps), *map(_foreach_clone, moments)]
    run(ps, gs, *moments)
    return new


def _fill_steps(p: Tensor, others: Tensors) -> bool:
    """Return whether tensors have the same layout, without gaps, and fill whole blocks of a kernel."""
    strides = p.stride()
    return _is_full(p.shape, strides) and all([x.stride() == strides for x in others])  # noqa: C419


@lru_cache(1024)
def _is_full(shape: torch.Size, strides: tuple[int, ...]) -> bool:
    length = 1
    for step, n in sorted([(step, n) for n, step in zip(shape, strides, strict=True) if n > 1]):
        if step != length:
            return False
        length *= n
    return fills_steps(length)


def fills_steps(length: int) -> bool:
    """Return whether this many elements fill whole blocks of a kernel: then a part of a tensor gets the bits of the whole."""
    return length % _STEP == 0


def _row(x: Tensor, keep: bool, donated: bool) -> Tensor:
    if donated:
        return x if keep else x.contiguous()
    return x.clone(memory_format=torch.preserve_format if keep else torch.contiguous_format)


def _with_strides_of(g: Tensor, p: Tensor, keep: bool) -> Tensor:
    """Return a gradient with the strides of its parameter."""
    if not keep:
        return g.contiguous()
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)


def _like_old_values(y: Tensor, x: Tensor, keep: bool, donated: bool) -> Tensor:
    """Return new values with the strides of the old ones or, with ``donated``, in their memory."""
    if donated:
        return x if y is x else x.copy_(y)
    return y if keep or x.is_contiguous() else torch.empty_like(x).copy_(y)


def sgd(columns: Sequence[Tensors], rates: Sequence[Any], donated: bool, **how: bool) -> Sequence[Tensors] | None:
    """Return SGD's new p and, with momentum, b, from p, g and b, with one kernel per tensor; ``None`` for other variants.

    ``rates`` are lr, momentum, dampening and decay; ``how`` has nesterov and maximize. A step with momentum takes 2.8 µs in place
    and 15 on clones; one list operation each for b and p, which rounds differently, takes 13 and 14. For half a million
    parameters they take 75 and 117 µs in place; for four million 1.2 and 1.5 ms in place, and 2.7 and 2.2 on clones. In half
    precision, torch 2.13.0 leaves all but the last few parameters unchanged.
    """
    kernel = torchs.fused_sgd
    if kernel is None or not is_eager() or any([isinstance(one, Tensor) for one in rates]) or not in_memory(columns):  # noqa: C419
        return None
    if not all([x.dtype in FULL for x in columns[0]]) or (len(columns) > 2 and rates[1] == 0):  # noqa: C419
        return None  # without momentum the kernel rejects a buffer
    numbers = dict(zip(("lr", "momentum", "dampening", "weight_decay"), rates, strict=True))
    run = lambda ps, gs, bs=(): kernel(ps, gs, bs, **numbers, is_first_step=False, **how)
    return by_rows(run, columns, donated)


def adam(columns: Sequence[Tensors], step: Tensor, rates: Sequence[Any], **how: Any) -> Sequence[Tensors]:
    """Return the new p, m, v and, for amsgrad, x, from p, g, m, v and x, by the formula in ``funcnet.optim.adam``.

    The columns must agree in shapes and dtypes; ``step`` counts from 1; ``rates`` are lr, β₁, β₂ and the decay; ``how`` has eps,
    maximize, decoupled and donated.

    ``_fused_adam_`` takes 25 µs with three clones and 5 in place, the formula with list operations 38. For a million parameters
    an AdamW step takes 0.38 ms in place, 0.25 compiled, and 1.2 with list operations. Both use two threads, if available, for
    every tensor, however small (the formula for its root): this takes 4 µs more, and a multiple if the processors are busy.
    """
    numbers = not any([isinstance(rate, Tensor) for rate in rates])  # noqa: C419
    if numbers and ADAM.value == 0 and is_eager() and in_memory(columns):
        return _adam_fused(columns, step, rates, **how)
    return _adam_listed(columns, step, rates, **how)


def _adam_fused(
    columns: Sequence[Tensors], step: Tensor, rates: Sequence[Any], eps: float, maximize: bool, decoupled: bool, donated: bool
) -> Sequence[Tensors]:
    kernel: Callable[..., None] = torchs.fused_adamw if decoupled else torchs.fused_adam
    lr, beta1, beta2, decay = rates
    numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": eps, "maximize": maximize}

    def run(ps: Tensors, gs: Tensors, ms: Tensors, vs: Tensors, xs: Tensors | None = None) -> None:
        kernel(ps, gs, ms, vs, xs or (), [step] * len(gs), amsgrad=xs is not None, **numbers)

    return by_rows(run, columns, donated)


def _adam_listed(
    columns: Sequence[Tensors], step: Tensor, rates: Sequence[Any], eps: float, maximize: bool, decoupled: bool, donated: bool
) -> Sequence[Tensors]:
    (ps, gs, ms, vs, *xs), (lr, beta1, beta2, decay) = columns, rates
    out = [*columns, None] if donated else [None] * 5
    gs = scale_each(gs, -1.0) if maximize else gs
    if isinstance(decay, Tensor) or decay:
        ps, gs = (add_each(ps, ps, -lr * decay, out[0]), gs) if decoupled else (ps, add_each(gs, ps, decay))
    ms = lerp_each(ms, gs, 1 - beta1, out[2])
    vs = lerp_each(vs, _squares(gs), 1 - beta2, out[3])
    xs = [_larger(xs[0], vs, out[4])] if xs else []
    t = read(step)
    t = t.to(torch.float64) if isinstance(t, Tensor) else t
    root = materialize_scalar((1 - beta2**t) ** 0.5)
    rate = materialize_scalar(-lr * root / (1 - beta1**t))
    return [_add_ratio(ps, ms, xs[0] if xs else vs, rate, eps * root, out[0]), ms, vs, *xs]


def _squares(xs: Tensors) -> Tensors:
    return _foreach_mul(xs, xs) if is_eager() else [x * x for x in xs]


def _larger(xs: Tensors, ys: Tensors, out: Tensors | None) -> Tensors:
    """Return the elementwise maximum; ``out``, which is ``xs``, may be written to."""
    if not is_eager():
        return kept([torch.maximum(x, y) for x, y in zip(xs, ys, strict=True)], xs, out)
    if out is None:
        return _foreach_maximum(xs, ys)
    _foreach_maximum_(xs, ys)
    return xs


def _add_ratio(ps: Tensors, ms: Tensors, vs: Tensors, a: Any, eps: Any, out: Tensors | None) -> Tensors:
    """Return p + a m / (√v + eps); ``out``, which is ``ps``, may be written to."""
    if isinstance(a, Tensor) or not is_eager():
        rows = zip(ps, ms, vs, strict=True)
        return kept([p + narrowed(a, p) * m / (v.sqrt() + narrowed(eps, v)) for p, m, v in rows], ps, out)
    below = _foreach_sqrt(vs)
    _foreach_add_(below, [torch.ones(())] * len(below), alpha=eps)  # 4.5 µs; adding the number itself takes 11.5
    if out is None:
        return _foreach_addcdiv(ps, ms, below, a)
    _foreach_addcdiv_(ps, ms, below, a)
    return ps
