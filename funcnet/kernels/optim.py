"""Kernels of optimizers: operations on lists of tensors. Times are for the eight tensors of a 2-25-25-25-2 net on one thread."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels import private_names as torchs
from funcnet.kernels.tracing import is_compiling, is_eager
from funcnet.precision import HALF

Tensors = Sequence[Tensor]

_foreach_add: Callable[..., Tensors] = torchs.foreach_add
_foreach_add_: Callable[..., None] = torchs.foreach_add_
_foreach_lerp: Callable[..., Tensors] = torchs.foreach_lerp
_foreach_lerp_: Callable[..., None] = torchs.foreach_lerp_
_foreach_mul: Callable[..., Tensors] = torchs.foreach_mul
_foreach_norm: Callable[..., Tensors] = torchs.foreach_norm
_foreach_copy_: Callable[..., None] = torchs.foreach_copy_

FULL = (torch.float32, torch.float64)
DTYPES = (*FULL, *HALF)
"""The dtypes of params that kernels support."""

MOST = torch.finfo(torch.float32).max
"""The largest rate that kernels accept for float32 tensors: for a larger one they raise after other tensors were written."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of moments for params of a dtype: float32 for half precision, where squares underflow or overflow."""
    return torch.float32 if dtype in HALF else dtype


def is_half(x: Tensor) -> bool:
    """Return whether a tensor is in half precision."""
    return x.dtype in HALF


def write_each(xs: Tensors, ys: Tensors) -> None:
    """Write each y into the memory of its x, rounded to the dtype of x."""
    _foreach_copy_(xs, ys)


def any_half(ps: Tensors) -> bool:
    """Return whether any parameter is in half precision."""
    return any([p.dtype in HALF for p in ps])  # noqa: C419 (a generator takes longer)


def step_in_single(step: Callable[[Sequence[Tensors]], Sequence[Tensors]], columns: Sequence[Tensors], donated: bool) -> Any:
    """Step in float32 if params are in half precision, and round their new values once."""
    singles = [[x.to(wide(x.dtype)) for x in column] for column in columns]
    ps, *moments = step(singles)
    new = [x.to(p.dtype) for x, p in zip(ps, columns[0], strict=True)]
    if not donated:
        return [new, *moments]
    _foreach_copy_(columns[0], new)
    return [columns[0], *moments]


def read(x: Tensor) -> Any:
    """Return a 0-d tensor as a number if that requires no waiting: in eager mode in main memory; else unchanged."""
    return x.item() if type(x) is Tensor and x.is_cpu and not x.requires_grad and is_eager() else x


def beside(x: Tensor, like: Tensor) -> Tensor:
    """Move a 0-d tensor to the device of another; return 0 if x is on the meta device, where it has no value."""
    return torch.zeros_like(like, dtype=x.dtype) if x.is_meta and not like.is_meta else x.to(like.device)


def kept(new: Tensors, like: Tensors, out: Tensors | None) -> Tensors:
    """Return results in the dtypes of ``like``; in compiled code, where that is one pass, written to ``out``."""
    new = [x.to(y.dtype) for x, y in zip(new, like, strict=True)]  # a 0-d result can have the dtype of a 0-d factor
    if out is None or not is_compiling():
        return new
    _foreach_copy_(out, new)
    return out


def materialize_scalar(a: Any) -> Any:
    """Force compiled code to compute a step-dependent scalar once instead of once per 16 elements, which takes 4 times as long.

    It returns a view: Inductor stores the input of a view in memory.
    """
    return a.as_strided((), ()) if isinstance(a, Tensor) and is_compiling() else a


def narrowed(a: Any, x: Tensor) -> Any:
    """Cast a 0-d float64 tensor to the precision of x, since Inductor vectorizes only loops in one precision."""
    return a.to(x.dtype if x.dtype is torch.float64 else torch.float32) if isinstance(a, Tensor) else a


def choose(condition: Tensor, a: Any, b: Any) -> Tensor:
    """Return a if a 0-d tensor is not 0, else b; a number is cast to the dtype of the other, two numbers to float64."""
    like = next((x for x in (a, b) if isinstance(x, Tensor)), condition.to(torch.float64))
    a, b = [x if isinstance(x, Tensor) else torch.full((), x, dtype=like.dtype, device=like.device) for x in (a, b)]
    return torch.where(condition != 0, a, b)


def plus(x: Tensor, y: Tensor, a: Any) -> Tensor:
    """Return x + a y; if a is a number, in one pass with one rounding."""
    return x + narrowed(a, x) * y.to(x.dtype) if isinstance(a, Tensor) else torch.add(x, y, alpha=a)


def lerp(x: Tensor, y: Tensor, a: Any) -> Tensor:
    """Return x + a (y - x); if a is a number, in one pass.

    For 1152×384 elements one pass takes 0.05 ms; three operations take 2.2, most of which is to get fresh memory.
    """
    return x + narrowed(a, x) * (y - x) if isinstance(a, Tensor) else torch.lerp(x, y, a)


def add_each(xs: Tensors, ys: Tensors, a: Any, out: Tensors | None = None) -> Tensors:
    """Return x + a y for each pair, where a is a number or a 0-d tensor; ``out``, one of the two lists, may be written to.

    A list takes 7.2 µs, or in place 4.0 in the xs and 9.6 in the ys. With a separate product, ``_foreach_mul`` with a number, it
    takes 22: that kernel makes a tensor from the number for every product.
    """
    if isinstance(a, Tensor):
        return kept([x + narrowed(a, x) * y for x, y in zip(xs, ys, strict=True)], xs, out)
    if not is_eager():
        # The same kernel as torch.add, but Inductor (torch 2.13.0) fuses an added matrix product into addmm and drops alpha.
        return kept([torch.sub(x, y, alpha=-a) for x, y in zip(xs, ys, strict=True)], xs, out)
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
    """Return x + a (y - x) for each pair, a a number or a 0-d tensor, in 6.8 µs; ``out``, which is ``xs``, may be written to."""
    if isinstance(a, Tensor):
        return kept([x + narrowed(a, x) * (y - x) for x, y in zip(xs, ys, strict=True)], xs, out)
    if not is_eager():
        return kept([torch.lerp(x, y, a) for x, y in zip(xs, ys, strict=True)], xs, out)
    if out is None:
        return _foreach_lerp(xs, ys, a)
    _foreach_lerp_(xs, ys, a)
    return xs


def scale_each(xs: Tensors, a: Any) -> Tensors:
    """Multiply each tensor by a number or a 0-d tensor; a 1 that can be read without waiting is skipped.

    It takes 12.5 µs with a tensor, 15 with a number, and 15 to 18 one by one. The list operation has no derivative in the factor.
    """
    known = read(a) if isinstance(a, Tensor) else a
    if not xs or (not isinstance(known, Tensor) and known == 1):
        return xs
    one_by_one = not is_eager() or (isinstance(a, Tensor) and a.requires_grad)
    return kept([x * narrowed(a, x) for x in xs] if one_by_one else _foreach_mul(xs, a), xs, None)


def norm_of_all(xs: Tensors) -> Tensor:
    """Return the Euclidean norm of all tensors together, in float64, where squares of float32 do not overflow.

    It takes 18 µs, and 24 one by one. Float64 tensors are first scaled by the largest element if their squares overflow or
    underflow. Elements are summed in logical order, whatever the strides.
    """
    if not xs:
        return torch.zeros((), dtype=torch.float64)
    xs = [x.contiguous() for x in xs]
    parts = list(_foreach_norm(xs, 2, dtype=torch.float64)) if is_eager() else [_norm64(x) for x in xs]
    norm, is_wide = _norm64(torch.stack(parts)), any([x.dtype is torch.float64 for x in xs])  # noqa: C419
    if not is_wide or (is_eager() and norm.is_cpu and 1e-140 < norm < math.inf):
        return norm
    return torch.where((norm > 1e-140) & (norm < math.inf), norm, _scaled_norm(xs))


def _norm64(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float64)
    return norm


def _scaled_norm(xs: Tensors) -> Tensor:
    """Return the norm of all tensors together, divided by their largest element first so that no square overflows."""
    most = torch.stack([x.abs().amax().double() for x in xs if x.numel()] or [torch.zeros((), dtype=torch.float64)]).amax()
    scale = torch.where((most > 0) & (most < math.inf), most, 1.0)
    return scale * _norm64(torch.stack([_norm64(x / scale) for x in xs]))


def all_finite(xs: Tensors) -> Tensor:
    """Return whether every element of all tensors is finite, as a 0-d bool tensor."""
    return torch.stack([x.isfinite().all() for x in xs]).all() if xs else torch.ones((), dtype=torch.bool)


def are_finite(xs: Tensors) -> bool:
    """Return ``all_finite`` as a bool. On the CPU it uses the extremes: 0.15 ms instead of 4.1 for 10⁶ float32 elements."""
    plain = [x for x in xs if x.is_cpu and x.dtype in DTYPES]
    others = [x for x in xs if not (x.is_cpu and x.dtype in DTYPES)]
    ends = (end.item() for x in plain if x.numel() for end in torch.aminmax(x))  # both ends are NaN if any element is
    return all(map(math.isfinite, ends)) and bool(all_finite(others))
