"""Kernels of optimizers: operations on lists of tensors. Times are of the eight tensors of a 2-25-25-25-2 net, one thread."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_compiling, is_eager

Tensors = Sequence[Tensor]

_foreach_add: Callable[..., Tensors] = torch._foreach_add
_foreach_add_: Callable[..., None] = torch._foreach_add_
_foreach_lerp: Callable[..., Tensors] = torch._foreach_lerp
_foreach_lerp_: Callable[..., None] = torch._foreach_lerp_
_foreach_mul: Callable[..., Tensors] = torch._foreach_mul
_foreach_norm: Callable[..., Tensors] = torch._foreach_norm
_foreach_sqrt: Callable[..., Tensors] = torch._foreach_sqrt
_foreach_maximum: Callable[..., Tensors] = torch._foreach_maximum
_foreach_maximum_: Callable[..., None] = torch._foreach_maximum_
_foreach_addcdiv: Callable[..., Tensors] = torch._foreach_addcdiv
_foreach_addcdiv_: Callable[..., None] = torch._foreach_addcdiv_
_foreach_clone: Callable[..., Tensors] = torch._foreach_clone
_foreach_copy_: Callable[..., None] = torch._foreach_copy_

HALF, _FULL = frozenset({torch.float16, torch.bfloat16}), frozenset({torch.float32, torch.float64})
DTYPES = HALF | _FULL
"""The dtypes of params that there are kernels for."""

MOST = torch.finfo(torch.float32).max
"""The largest rate that kernels take for float32 tensors: of a larger one they complain after others were written."""

_is_cpu = attrgetter("is_cpu")


class Rows(list[Tensors]):
    """Lists of tensors that are all contiguous and in main memory, which is known, so that no kernel asks again."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the moments of params of this one: float32 for half precision, in which squares are 0 or infinite."""
    return torch.float32 if dtype in HALF else dtype


def is_half(x: Tensor) -> bool:
    """Tell whether a tensor is in half precision."""
    return x.dtype in HALF


def write_each(xs: Tensors, ys: Tensors) -> None:
    """Write each y into the memory of its x, rounded to the dtype of x."""
    _foreach_copy_(xs, ys)


def any_half(ps: Tensors) -> bool:
    """Tell whether a parameter is in half precision."""
    return any([p.dtype in HALF for p in ps])  # noqa: C419 (a generator takes longer)


def in_single(step: Callable[[Sequence[Tensors]], Sequence[Tensors]], columns: Sequence[Tensors], donated: bool) -> Any:
    """Step in float32 where params are in half precision, and round their new values once."""
    singles = [[x.to(wide(x.dtype)) for x in column] for column in columns]
    ps, *moments = step(singles)
    new = [x.to(p.dtype) for x, p in zip(ps, columns[0], strict=True)]
    if not donated:
        return [new, *moments]
    _foreach_copy_(columns[0], new)
    return [columns[0], *moments]


def read(x: Tensor) -> Any:
    """Return a 0-d tensor as a number where nothing waits for it, in eager mode and main memory; elsewhere as it is."""
    return x.item() if type(x) is Tensor and x.is_cpu and not x.requires_grad and is_eager() else x


def _kept(new: Tensors, like: Tensors, out: Tensors | None) -> Tensors:
    """Give results the dtypes of ``like``; in compiled code, where that is one pass, put them into ``out``."""
    new = [x.to(y.dtype) for x, y in zip(new, like, strict=True)]  # a 0-d tensor takes the dtype of a 0-d factor
    if out is None or not is_compiling():
        return new
    _foreach_copy_(out, new)
    return out


def materialize_scalar(a: Any) -> Any:
    """Have a number that compiled code computes from the step computed once, not again for every 16 elements: 4 times the time.

    The compiler puts what comes before a view of memory into memory.
    """
    return a.as_strided((), ()) if isinstance(a, Tensor) and is_compiling() else a


def _narrowed(a: Any, x: Tensor) -> Any:
    """Give a 0-d float64 tensor the precision that x has, for loops over x alone are compiled to vector instructions."""
    return a.to(x.dtype if x.dtype is torch.float64 else torch.float32) if isinstance(a, Tensor) else a


def add_each(xs: Tensors, ys: Tensors, a: Any, out: Tensors | None = None) -> Tensors:
    """Sum x + a y for each pair, a number or a 0-d tensor; ``out``, one of the two lists, may be written to.

    7.2 µs for a list, 4.0 over the xs, 9.6 over the ys. With a product first, ``_foreach_mul`` by a number, 22: it makes a tensor
    of the number for every product.
    """
    if isinstance(a, Tensor):
        return _kept([x + _narrowed(a, x) * y for x, y in zip(xs, ys, strict=True)], xs, out)
    if not is_eager():
        # The same kernel as torch.add's; but Inductor (torch 2.13.0) makes addmm of a product added, and forgets its alpha.
        return _kept([torch.sub(x, y, alpha=-a) for x, y in zip(xs, ys, strict=True)], xs, out)
    if out is None:
        return _foreach_add(xs, ys, alpha=a)
    if out is xs:
        _foreach_add_(xs, ys, alpha=a)
    else:
        for x, y in zip(xs, ys, strict=True):
            torch.add(x, y, alpha=a, out=y)
    return out


def descend(ps: Tensors, gs: Tensors, bs: Tensors, lr: Any, momentum: Any, donated: bool) -> Sequence[Tensors]:
    """Return the new p - lr b and b = g + momentum b; with ``donated`` the old ones may be written to."""
    if donated or isinstance(lr, Tensor) or isinstance(momentum, Tensor) or not is_eager():
        bs = add_each(gs, bs, momentum, bs if donated else None)
        return [add_each(ps, bs, -lr, ps if donated else None), bs]
    bs = _foreach_add(gs, bs, alpha=momentum)
    return [_foreach_add(ps, bs, alpha=-lr), bs]


def lerp_each(xs: Tensors, ys: Tensors, a: Any, out: Tensors | None = None) -> Tensors:
    """Sum x + a (y - x) for each pair, a number or a 0-d tensor; ``out``, which is ``xs``, may be written to. 6.8 µs."""
    if isinstance(a, Tensor):
        return _kept([x + _narrowed(a, x) * (y - x) for x, y in zip(xs, ys, strict=True)], xs, out)
    if not is_eager():
        return _kept([torch.lerp(x, y, a) for x, y in zip(xs, ys, strict=True)], xs, out)
    if out is None:
        return _foreach_lerp(xs, ys, a)
    _foreach_lerp_(xs, ys, a)
    return xs


def scale_each(xs: Tensors, a: Any) -> Tensors:
    """Multiply each tensor by a number or a 0-d tensor; by 1, where that can be seen without waiting, it is none of the work.

    12.5 µs by a tensor, 15 by a number, one by one 15 to 18. The list operation has no derivative by the factor.
    """
    known = read(a) if isinstance(a, Tensor) else a
    if not isinstance(known, Tensor) and known == 1:
        return xs
    one_by_one = not is_eager() or (isinstance(a, Tensor) and a.requires_grad)
    return _kept([x * _narrowed(a, x) for x in xs] if one_by_one else _foreach_mul(xs, a), xs, None)


def norm_of_all(xs: Tensors) -> Tensor:
    """Euclidean norm of all tensors together, in float64, which holds the square of every float32. 18 µs, one by one 24.

    Float64 tensors are scaled by the largest element first if their squares overflow or vanish. The sums go through elements in
    order, whatever the strides.
    """
    if not xs:
        return torch.zeros((), dtype=torch.float64)
    xs = [x.contiguous() for x in xs]
    parts = list(_foreach_norm(xs, 2, dtype=torch.float64)) if is_eager() else [_norm64(x) for x in xs]
    norm, is_wide = _norm64(torch.stack(parts)), any([x.dtype is torch.float64 for x in xs])  # noqa: C419
    if not is_wide or (is_eager() and not norm.is_meta and 1e-140 < norm < math.inf):
        return norm
    return torch.where((norm > 1e-140) & (norm < math.inf), norm, _scaled_norm(xs))


def _norm64(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float64)
    return norm


def _scaled_norm(xs: Tensors) -> Tensor:
    """Norm of all tensors together, as that of the tensors over the largest element, times it: no square overflows."""
    most = torch.stack([x.abs().amax().double() for x in xs if x.numel()] or [torch.zeros((), dtype=torch.float64)]).amax()
    scale = torch.where((most > 0) & (most < math.inf), most, 1.0)
    return scale * _norm64(torch.stack([_norm64(x / scale) for x in xs]))


def in_rows(columns: Sequence[Tensors]) -> bool:
    """Tell that all tensors are contiguous and in main memory: 2.5 µs for three lists, unless it is known."""
    return type(columns) is Rows or (_in_memory(columns) and all([all(map(Tensor.is_contiguous, one)) for one in columns]))  # noqa: C419


def _in_memory(columns: Sequence[Tensors]) -> bool:
    return type(columns) is Rows or all([all(map(_is_cpu, column)) for column in columns])  # noqa: C419


# Fused kernels go through memory in steps of 64 bytes, and round the elements that fill no step otherwise than the others.
_STEP = 16


def _by_rows(run: Callable[..., None], columns: Sequence[Tensors], donated: bool) -> Sequence[Tensors]:
    """Have a fused kernel write the new params and moments, so that equal values get equal bits whatever their strides.

    It goes through the memory of all tensors of a leaf side by side. They come to it contiguous, or as they are if they lie alike
    and fill whole steps: then their order does not matter. An update of 295 thousand parameters in channels_last takes 0.45 ms,
    and 1.7 by way of contiguous copies.
    """
    ps, gs, *moments = columns
    old = [ps, *moments]
    if in_rows(columns):
        new = old if donated else [_foreach_clone(column) for column in old]
        run(new[0], gs, *new[1:])
        return new
    kept = [_fill_steps(p, xs) for p, *xs in zip(*old, strict=True)]
    rows = [[_row(x, keep, donated) for x, keep in zip(column, kept, strict=True)] for column in old]
    run(rows[0], [_laid_as(g, p, keep) for g, p, keep in zip(gs, ps, kept, strict=True)], *rows[1:])
    return [
        [_as_before(*one, donated) for one in zip(new, column, kept, strict=True)] for new, column in zip(rows, old, strict=True)
    ]


def _fill_steps(p: Tensor, others: Tensors) -> bool:
    """Tell that tensors lie in memory alike, without gaps, and fill whole steps of a kernel."""
    strides = p.stride()
    return _is_full(p.shape, strides) and all([x.stride() == strides for x in others])  # noqa: C419


@lru_cache(1024)
def _is_full(shape: torch.Size, strides: tuple[int, ...]) -> bool:
    length = 1
    for step, n in sorted([(step, n) for n, step in zip(shape, strides, strict=True) if n > 1]):
        if step != length:
            return False
        length *= n
    return length % _STEP == 0


def _row(x: Tensor, keep: bool, donated: bool) -> Tensor:
    if donated:
        return x if keep else x.contiguous()
    return x.clone(memory_format=torch.preserve_format if keep else torch.contiguous_format)


def _laid_as(g: Tensor, p: Tensor, keep: bool) -> Tensor:
    """Give a gradient the strides that its parameter comes with."""
    if not keep:
        return g.contiguous()
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)


def _as_before(y: Tensor, x: Tensor, keep: bool, donated: bool) -> Tensor:
    """Give new values the strides of the old ones, or with ``donated`` their memory."""
    if donated:
        return x if y is x else x.copy_(y)
    return y if keep or x.is_contiguous() else torch.empty_like(x).copy_(y)


def sgd(columns: Sequence[Tensors], rates: Sequence[Any], donated: bool, **how: bool) -> Sequence[Tensors] | None:
    """Return SGD's new p and, with momentum, b from p, g and b, by a kernel for each tensor; ``None`` where it does not serve.

    ``rates`` are lr, momentum, dampening and decay, ``how`` is nesterov and maximize. A step with momentum takes 2.8 µs in place
    and 15 on clones; as a sum for b and one for p, with other roundings, 13 and 14. Of half a million parameters 75 µs in place
    and 117; of four million 1.2 ms and 1.5, and on clones 2.7 and 2.2. In half precision torch 2.13.0 leaves all but the last
    few parameters as they are.
    """
    if not is_eager() or any([isinstance(one, Tensor) for one in rates]) or not _in_memory(columns):  # noqa: C419
        return None
    if not all([x.dtype in _FULL for x in columns[0]]) or (len(columns) > 2 and rates[1] == 0):  # noqa: C419
        return None  # without momentum the kernel refuses to have a buffer
    numbers = dict(zip(("lr", "momentum", "dampening", "weight_decay"), rates, strict=True))
    kernel: Callable[..., None] = torch._fused_sgd_
    run = lambda ps, gs, bs=(): kernel(ps, gs, bs, **numbers, is_first_step=False, **how)
    return _by_rows(run, columns, donated)


def adam(columns: Sequence[Tensors], step: Tensor, rates: Sequence[Any], **how: Any) -> Sequence[Tensors]:
    """Return new p, m, v and, for amsgrad, x from p, g, m, v, x, by the formula that stands in ``optimizers``.

    The columns' shapes and dtypes agree; ``step`` counts from 1; ``rates`` are lr, β₁, β₂ and the decay; ``how`` is eps,
    maximize, decoupled and donated.

    Three clones and ``_fused_adam_`` take 25 µs, in place 5, the formula in list operations 38. Of a million parameters an
    AdamW step takes 0.38 ms in place, compiled 0.25, in list operations 1.2. With two threads both call them together for
    every tensor, however small (the formula for its root): 4 µs more, and a multiple of that where the processors are busy.
    """
    numbers = not any([isinstance(rate, Tensor) for rate in rates])  # noqa: C419
    if numbers and is_eager() and _in_memory(columns):
        return _adam_fused(columns, step, rates, **how)
    return _adam_listed(columns, step, rates, **how)


def _adam_fused(
    columns: Sequence[Tensors], step: Tensor, rates: Sequence[Any], eps: float, maximize: bool, decoupled: bool, donated: bool
) -> Sequence[Tensors]:
    kernel: Callable[..., None] = torch._fused_adamw_ if decoupled else torch._fused_adam_
    lr, beta1, beta2, decay = rates
    numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": eps, "maximize": maximize}

    def run(ps: Tensors, gs: Tensors, ms: Tensors, vs: Tensors, xs: Tensors | None = None) -> None:
        kernel(ps, gs, ms, vs, xs or (), [step] * len(gs), amsgrad=xs is not None, **numbers)

    return _by_rows(run, columns, donated)


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
    """Take the larger of each two elements; ``out``, which is ``xs``, may be written to."""
    if not is_eager():
        return _kept([torch.maximum(x, y) for x, y in zip(xs, ys, strict=True)], xs, out)
    if out is None:
        return _foreach_maximum(xs, ys)
    _foreach_maximum_(xs, ys)
    return xs


def _add_ratio(ps: Tensors, ms: Tensors, vs: Tensors, a: Any, eps: Any, out: Tensors | None) -> Tensors:
    """Sum p + a m / (√v + eps); ``out``, which is ``ps``, may be written to."""
    if isinstance(a, Tensor) or not is_eager():
        rows = zip(ps, ms, vs, strict=True)
        return _kept([p + _narrowed(a, p) * m / (v.sqrt() + _narrowed(eps, v)) for p, m, v in rows], ps, out)
    below = _foreach_sqrt(vs)
    _foreach_add_(below, [torch.ones(())] * len(below), alpha=eps)  # 4.5 µs, the number itself 11.5
    if out is None:
        return _foreach_addcdiv(ps, ms, below, a)
    _foreach_addcdiv_(ps, ms, below, a)
    return ps
