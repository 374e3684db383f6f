"""Fallbacks for torch's private names, with the same arguments and results, for releases of torch that lack a name.

They are slower but return the same results. ``funcnet.kernels.private_names`` chooses between the two once, at import.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.precision import in_single, rounded

Maybe = Tensor | None

AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")

_aten = torch.ops.aten


class _Probe(torch.autograd.Function):
    """A function without ``setup_context``, which torch rejects while a transform of ``torch.func`` is active.

    The rejection is documented, and is the only public sign of a transform. Nothing is differentiated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, *gs: Any) -> Any:
        return gs


_ZERO = torch.zeros((), device="cpu")


def plain_is_transformed() -> bool | None:
    """Return ``True`` while a transform of ``torch.func`` is active, else ``None``, like an empty stack; takes 3 µs."""
    try:
        _Probe.apply(_ZERO)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return True
    return None


def plain_is_batched(x: Tensor) -> bool:
    """Return whether ``vmap`` may map over x: here, whether any transform is active."""
    return plain_is_transformed() is True


def plain_is_key_in_tls(name: str) -> bool:
    """Return whether this is the main thread, which usually imports torch's modules and so has their thread-local state."""
    return threading.current_thread() is threading.main_thread()


def plain_is_any_compiling() -> bool | None:
    """Return ``True`` while any thread compiles, else ``None``: the flag is per process, since there is none per thread."""
    return torch.compiler.is_compiling() or None


def plain_count_compiling() -> int:
    """Return 1 while any thread compiles, else 0."""
    return int(torch.compiler.is_compiling())


def plain_is_any_autocast() -> bool:
    """Return whether autocast is on for any device."""
    return any([torch.is_autocast_enabled(device) for device in AUTOCAST_DEVICES])  # noqa: C419


def plain_softmax_backward(gy: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return y (gy - Σ gy y), with the sum over ``dim``."""
    g, p = in_single(gy), in_single(y)
    along = g * p
    return (along - p * along.sum(dim, keepdim=True)).to(dtype)


def plain_log_softmax_backward(gy: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return gy - exp(y) Σ gy, with the sum over ``dim``."""
    g = in_single(gy)
    return (g - in_single(y).exp() * g.sum(dim, keepdim=True)).to(dtype)


def plain_prelu_backward(gy: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return gx, and the terms of gw."""
    return torch.where(x > 0, gy, w * gy), torch.where(x > 0, 0.0, x * gy)


def plain_batch_norm_functional(
    x: Tensor, weight: Maybe, bias: Maybe, mean: Tensor, var: Tensor, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...]:
    """Normalize with the batch's moments, and update copies of the running mean and variance."""
    mean, var = mean.clone(), var.clone()
    y, mu, r = torch.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    return y, mu, r, mean, var


def plain_adaptive_avg_pool_backward(gy: Tensor, x: Tensor) -> Tensor:
    """Distribute the gradient of each mean over its window, with one matrix product per axis."""
    gx = in_single(gy)
    for axis in range(2, x.dim()):
        gx = (gx.movedim(axis, -1) @ _means(x.shape[axis], gy.shape[axis], gx)).movedim(-1, axis)
    return rounded(gx, gy)


def _means(n: int, windows: int, like: Tensor) -> Tensor:
    """Return the matrix (m, n) that averages n elements over m windows: window i is ⌊i n / m⌋ to ⌈(i + 1) n / m⌉."""
    i, at = torch.arange(windows, device=like.device).unsqueeze(1), torch.arange(n, device=like.device)
    begin, end = i * n // windows, ((i + 1) * n + windows - 1) // windows
    return ((at >= begin) & (at < end)).to(like.dtype) / (end - begin)


def _nearest(n: int, size: int, scale: float | None, like: Tensor) -> Tensor:
    """Return the positions of ``size`` samples among n elements: ⌊(i + ½) step⌋, in float32 like the kernels."""
    step = torch.tensor(1 / scale if scale else n / size, dtype=torch.float32, device=like.device)
    places = (torch.arange(size, dtype=torch.float64, device=like.device) + 0.5) * step.double()
    return places.float().floor().long().clamp(max=n - 1)


def plain_nearest_exact(x: Tensor, size: Sequence[int], *scales: float | None) -> Tensor:
    """Sample the last axes of x at the nearest elements."""
    for i, (n, scale) in enumerate(zip(size, scales, strict=True)):
        x = x.index_select(i + 2, _nearest(x.shape[i + 2], n, scale, x))
    return x


def plain_nearest_exact_backward(gy: Tensor, size: Sequence[int], shape: Sequence[int], *scales: float | None) -> Tensor:
    """Sum the gradients of the samples of each element."""
    gx = in_single(gy)
    for i, (n, scale) in enumerate(zip(size, scales, strict=True)):
        wide = gx.new_zeros((*gx.shape[: i + 2], shape[i + 2], *gx.shape[i + 3 :]))
        gx = wide.index_add(i + 2, _nearest(shape[i + 2], n, scale, gx), gx)
    return rounded(gx, gy)


def plain_scan(step: Callable[..., Any], carry: Any, xs: Sequence[Tensor], *, reverse: bool) -> tuple[Any, list[Tensor]]:
    """Run a step along the first axis of xs, unrolled: the graph and its compile time grow with the length."""
    rows, entries = [], [*zip(*[x.unbind() for x in xs], strict=True)]
    for entry in reversed(entries) if reverse else entries:
        carry, outputs = step(carry, [*entry])
        rows.append(outputs)
    return carry, [torch.stack(column) for column in zip(*(reversed(rows) if reverse else rows), strict=True)]


class PlainDispatchMode:
    """A mode that does not see kernels, and uses torch's FLOP count, which differs for grouped convolutions and attention."""

    def __enter__(self) -> Any:
        from torch.utils.flop_counter import FlopCounterMode

        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)  # type: ignore[no-untyped-call]

    def counted(self) -> int:
        """Return the FLOPs of all kernels so far."""
        return int(self._counter.get_total_flops())


# Operations on lists: the CPU kernels are the same loops in C++, with the same bits.

Tensors = Sequence[Tensor]


def plain_foreach_add(xs: Tensors, ys: Tensors, *, alpha: float) -> list[Tensor]:
    """Return x + alpha y for each pair."""
    return [torch.add(x, y, alpha=alpha) for x, y in zip(xs, ys, strict=True)]


def plain_foreach_add_(xs: Tensors, ys: Tensors, *, alpha: float) -> None:
    """Add alpha y to each x."""
    for x, y in zip(xs, ys, strict=True):
        x.add_(y, alpha=alpha)


def plain_foreach_lerp(xs: Tensors, ys: Tensors, a: float) -> list[Tensor]:
    """Return x + a (y - x) for each pair."""
    return [torch.lerp(x, y, a) for x, y in zip(xs, ys, strict=True)]


def plain_foreach_lerp_(xs: Tensors, ys: Tensors, a: float) -> None:
    """Move each x towards y."""
    for x, y in zip(xs, ys, strict=True):
        x.lerp_(y, a)


def plain_foreach_mul(xs: Tensors, others: Any) -> list[Tensor]:
    """Multiply each x by its factor, or all xs by one number or 0-d tensor."""
    ys = [others] * len(xs) if isinstance(others, (int, float, Tensor)) else others
    return [torch.mul(x, y) for x, y in zip(xs, ys, strict=True)]


def plain_foreach_norm(xs: Tensors, order: float, *, dtype: torch.dtype) -> list[Tensor]:
    """Return the norm of each x."""
    return [torch.linalg.vector_norm(x, order, dtype=dtype) for x in xs]


def plain_foreach_copy_(xs: Tensors, ys: Tensors) -> None:
    """Write each y to its x."""
    for x, y in zip(xs, ys, strict=True):
        x.copy_(y)


def plain_foreach_sqrt(xs: Tensors) -> list[Tensor]:
    """Return the square root of each x."""
    return [x.sqrt() for x in xs]


def plain_foreach_maximum(xs: Tensors, ys: Tensors) -> list[Tensor]:
    """Return the elementwise maximum of each pair."""
    return [torch.maximum(x, y) for x, y in zip(xs, ys, strict=True)]


def plain_foreach_maximum_(xs: Tensors, ys: Tensors) -> None:
    """Write the elementwise maximum of each pair to x."""
    for x, y in zip(xs, ys, strict=True):
        torch.maximum(x, y, out=x)


def plain_foreach_addcdiv(xs: Tensors, ys: Tensors, zs: Tensors, value: float) -> list[Tensor]:
    """Return x + value y / z for each triple."""
    return [torch.addcdiv(x, y, z, value=value) for x, y, z in zip(xs, ys, zs, strict=True)]


def plain_foreach_addcdiv_(xs: Tensors, ys: Tensors, zs: Tensors, value: float) -> None:
    """Add value y / z to each x."""
    for x, y, z in zip(xs, ys, zs, strict=True):
        x.addcdiv_(y, z, value=value)


def plain_foreach_clone(xs: Tensors) -> list[Tensor]:
    """Copy each x."""
    return [x.clone() for x in xs]
