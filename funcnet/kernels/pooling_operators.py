"""Max pooling as operators for compiled code, which Inductor calls without lowering them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcnet.kernels.tracing import is_plain_for_inductor

_library = torch.library.Library("funcnet", "FRAGMENT")  # type: ignore[no-untyped-call]
_HOW = "int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil"


class MaxPoolOperators:
    """Two functions of eager mode as operators: maxima with their indices, and the gradient of x.

    Results have the memory format of x, channels_last or contiguous, which the kernels do not always preserve.
    """

    def __init__(self, forward: Callable[..., tuple[Tensor, Tensor]], backward: Callable[..., Tensor]) -> None:
        self._forward, self._backward = forward, backward
        _define("max_pool", f"(Tensor x, {_HOW}) -> (Tensor, Tensor)", self._run_kernel, self._run_shapes)
        _define("max_pool_back", f"(Tensor gy, Tensor at, int[] shape, {_HOW}) -> Tensor", self._run_back_kernel, _back_shapes)
        self.run: Callable[..., tuple[Tensor, Tensor]] = torch.ops.funcnet.max_pool.default
        self.run_back: Callable[..., Tensor] = torch.ops.funcnet.max_pool_back.default

    def serves(self, x: Tensor, least: int, shape: Sequence[int] | None = None) -> bool:
        """Return whether Inductor compiles the calling code, for a large tensor that is not differentiated or mapped over."""
        size = math.prod(x.shape if shape is None else shape)
        return is_plain_for_inductor(x) and type(size) is int and size >= max(least, 1) and x.numel() > 0

    def _run_kernel(self, x: Tensor, *how: Any) -> tuple[Tensor, ...]:
        order = _order(x)
        found = self._forward(x.contiguous(memory_format=order), *_tuples(how))
        return tuple([one.contiguous(memory_format=order) for one in found])

    def _run_shapes(self, x: Tensor, *how: Any) -> tuple[Tensor, ...]:
        shape = self._forward(x.new_empty(x.shape, device="meta"), *_tuples(how))[0].shape
        order = _order(x)
        return tuple([x.new_empty(shape, dtype=dtype).contiguous(memory_format=order) for dtype in (x.dtype, torch.int64)])

    def _run_back_kernel(self, gy: Tensor, at: Tensor, shape: Sequence[int], *how: Any) -> Tensor:
        order = _order(at)
        of = tuple(shape), order is torch.channels_last
        gx = self._backward(gy.contiguous(memory_format=order), at.contiguous(memory_format=order), of, *_tuples(how))
        return gx.contiguous(memory_format=order)


def _tuples(how: Sequence[Any]) -> list[Any]:
    return [tuple(one) if isinstance(one, Sequence) else one for one in how]


def _order(x: Tensor) -> torch.memory_format:
    """Return channels_last if x is contiguous only in this format, else the contiguous format."""
    is_last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _back_shapes(gy: Tensor, at: Tensor, shape: Sequence[int], *how: Any) -> Tensor:
    return gy.new_empty(shape).contiguous(memory_format=_order(at))


def _define(name: str, schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    _library.define(name + schema)  # type: ignore[no-untyped-call]
    _library.impl(name, kernel, "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"funcnet::{name}", shapes, lib=_library)
